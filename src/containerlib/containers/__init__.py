# SPDX-License-Identifier: Apache-2.0
"""
One container's life: made, started, observed, ended, removed.

``creation`` writes it down, ``starting`` hands it to a monitor, ``observing``
says where it stands, ``ending`` stops and removes it and sweeps what dead
owners left.  The class Container stands above and adds nothing but the words.
"""
