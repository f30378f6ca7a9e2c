# SPDX-License-Identifier: Apache-2.0
"""
Linux containers from Python, without a daemon.
"""
