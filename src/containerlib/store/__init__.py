# SPDX-License-Identifier: Apache-2.0
"""
What lasts: objects, names, locks and blobs below one state directory.

Nothing here is remembered in a process: every answer is read from the file
system, every change is committed by one ``rename`` or one ``symlink``, and
what a killed maker left half-made is swept by whoever comes next.
"""

from containerlib.store.blobs import Blobs as Blobs
from containerlib.store.blobs import Descriptor as Descriptor
from containerlib.store.locks import locked as locked
from containerlib.store.objects import Objects as Objects
from containerlib.store.paths import default_root as default_root
from containerlib.store.paths import default_run_root as default_run_root
from containerlib.store.store import Store as Store
from containerlib.store.store import disk_usage as disk_usage
from containerlib.store.trees import remove_tree as remove_tree
