"""Which version numbers are of, and what that means for runs from before numbers had versions. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NUMERICS = 1
"""Version of the numbers that the core makes: the loop, the recipe, metrics, probe, selection rules, evaluation.

Raise it when the same method, data set, recipe and seed give other recorded numbers, to the bit and on purpose. It is
part of every run's id, so all runs are then trained again. Golden histories (`tests/golden/`) tell when it is due, and
docs/pages/numbers.md how it is done.
"""

UNVERSIONED = 0
"""Stands for the version of code from before there were versions that is not known to be that of version 1."""

VERSION_1 = frozenset(
    """
016a0f76b981 04ce4afcdd36 0666dd2edb9d 08062f072643 09da752c51a7 0a02c924c090 0c60b6d96e3d 0c64decb7c65 0ce0eb1eed0b
0d140bf805c8 0d93d166fcde 0f3867e14dc2 0faa064e47ed 1074283f994a 114d811b5548 15a197317f5c 17bda4ebac80 1b37431801b8
1cd0aa54ecaa 1db8045c73c3 203652433127 205c643dc813 22364c52f574 227251433ec4 22b72a17f83e 236ff7cad36d 2420bef6bc0b
25b62808ebe0 264fa4af311a 2815111973c3 29075293a6a8 2969ecfc9aac 2975e9c18332 2a171bf22ec3 2d61b4a24073 2f1742d1c2a0
307e7767b254 30c5a79f05d0 31f2511a2439 3300f9a21e46 3711a0095725 3761a0165a10 37af5f72148a 3973344ee032 3ae9f9d96ef9
3bebd243b7ce 3c301bdf6997 42bc34d5bb23 432c5bc2b046 43dc8f24332c 44cf654b350d 44ebf0157b3f 468d4c9039ef 47c72fe52560
4b7a7525774e 4c13b1e8f2a3 4dd3d950769d 4f6f9df72ea5 4f9781b0520c 501d3983936a 52fa671ef22c 53ba1736d77f 53e0e14953e4
54555fe21589 56595231581b 569e29d945f1 5a4672a911c4 5c28a2507d8f 5db2affa6c67 5e2588b736b2 5ea6f729b975 5ee7d4832446
61447e00f01c 6209f4337a2a 635149a5e4fb 645054684719 651bf7f36228 65a263e020cb 6664ad8df8e4 67882725f97a 699faf4abde4
69d316dce602 6af24dee0897 6c0a897f00db 6d5556b729a8 6e505a11521f 726f8c451978 72dc4e09d741 73271e31329d 73e21e1ca662
7460308ed649 761ea807066a 77bed413f43b 79ea3d5e0183 7a45f84621f0 7b79fb710166 7bae7889bfc6 7cb2f6708f8c 7ded5490bd2e
7e44891a0bd6 7f1dc2814074 82330ec0f5cb 83aad7c6b973 857ba8a0efd9 8973653f6051 899be4701a6b 8a0f78d6bc73 8bba361e766f
8e94367a8dfc 8f96e15c0f3f 902958880b43 922946045bf3 935e8bd0afcc 94abb3700497 957148db12a0 957ea9f69671 97d09a4eec89
9a06e7b1c706 9bd40a47bfa1 9c9cfdc98204 9cea28be03c9 9db74630a4c7 9dca09734f3d a0d57acf3230 a58f53f2fdea a687b3dfee25
a75117e06091 ab7d1a405c05 ad07685c4190 ad1018e3e1cb afb331b27180 b106176ae7ee b1e713a73eca b220882ec93f b226401e5835
b241b6ad5443 b55977e6618b b93b17e2e4c1 b9ca10f1d1cc bb0520472354 bb4ad56a9b2e bc142ba00a84 bd0b3471fb38 bd1e959c0dc0
bd7a22cc14cd bf88533842d1 c164a5557cc0 c567f6e1786c c5f2c484ad1b c7c889d84d36 c94678aa0d0a ca58bcc55b5c cc6b67bca7c1
d08dd8cdff60 d25b2c282520 d28e69a0c64c d46ae7b2c341 d525e59c637d d579521e493c d908fff57e3f d95107e35334 db1b2ec9c218
dbcbbfa7420e dfe2a045a413 e00f3a5141cd e10f4ce59ff9 e2475ede8a60 e2683303a7d5 e33f983e660f e412f7b481e9 e9d9375f01ed
ebf544ae76fe ecb3e016df5e ed2e5db582c2 edd77f4d0057 eea15e72de10 ef035187963f ef9132936719 f321c73eb52d f34ab902a433
f6ddb7e119a7 f91108f83fb2 f96bf0058767 faa7ea93096f fb0c1847ffb7 fcd80ed4bf49
""".split()  # noqa: SIM905  nine in a line
)
"""Digests of syntax trees that release 0.1.0 wrote into spec.yaml in the place of versions: of its core, its methods,
its data sets and its federated methods with each local method, under Python 3.11 and 3.12. All are of version 1."""


def migrate(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a spec.yaml as it is written today.

    Where there is a digest of code of release 0.1.0, its version is put; other digests of the core, or of a plugin of
    the package, are of older code: they are kept, under the version `UNVERSIONED`, which today's code never has. A
    plugin from outside the package keeps its digest.
    """
    if "core" not in spec:
        return dict(spec)
    new = {key: value for key, value in spec.items() if key != "core"}
    new["numerics"] = 1 if spec["core"] in VERSION_1 else UNVERSIONED
    for kind in ("method", "dataset"):
        code = spec[kind]["code"]
        if not str(spec[kind].get("source")).startswith("benchmark."):
            found = {"version": 1, "code": code}
        else:
            found = {"version": 1, "code": ""} if code in VERSION_1 else {"version": UNVERSIONED, "code": code}
        new[kind] = {**spec[kind], **found}
    if not new["numerics"]:  # or two of them would be taken for one
        new["method"]["code"] = f"{new['method']['code']} {spec['core']}".strip()
    return new
