# SPDX-License-Identifier: Apache-2.0
"""
Images: OCI documents, layers, and the host's own root file system.

What starts a container needs only the parts imported here; making images
(`importer`) loads more, when it is used.
"""

from containerlib.images.host import HostLayout as HostLayout
from containerlib.images.host import host_layout as host_layout
from containerlib.images.host import host_record as host_record
from containerlib.images.library import find as find
from containerlib.images.library import get as get
from containerlib.images.library import images as images
from containerlib.images.library import layer_path as layer_path
from containerlib.images.library import layer_size as layer_size
from containerlib.images.library import lower_directories as lower_directories
from containerlib.images.library import prune as prune
from containerlib.images.library import remove as remove
from containerlib.images.library import tag as tag
from containerlib.images.library import untag as untag
from containerlib.images.library import users as users
from containerlib.images.model import ImageRecord as ImageRecord
from containerlib.images.reference import Reference as Reference
