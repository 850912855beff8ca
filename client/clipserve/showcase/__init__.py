"""A web page that shows what the served models see; needs `pip install 'clipserve[showcase]'`.

>>> from clipserve.showcase import open_showcase
>>> with open_showcase(url="localhost:8001") as showcase:
...     print(showcase.address)
...     showcase.wait()
http://127.0.0.1:7860
"""

from clipserve.showcase.showcase import Showcase, open_showcase

__all__ = ["Showcase", "open_showcase"]
