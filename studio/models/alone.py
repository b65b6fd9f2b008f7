"""One model is built at a time.

While transformers builds or loads one, it sets torch's default dtype and device, and these are the
whole process's: another thread that builds one then, or opens one, gets tensors of a wrong kind.
"""

import threading

#: Held while a model is built or loaded.
ALONE = threading.RLock()
