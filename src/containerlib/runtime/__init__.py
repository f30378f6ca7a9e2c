# SPDX-License-Identifier: Apache-2.0
"""
From a configuration to live processes, and everything that is said to them.
"""
