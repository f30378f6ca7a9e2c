/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTAINERLIB_SHIM_H
#define CONTAINERLIB_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#pragma GCC visibility push(default)
#include "shim.cdef.h"
#pragma GCC visibility pop

#endif
