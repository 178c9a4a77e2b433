// SPDX-License-Identifier: Apache-2.0

package connect

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -cflags "-O2 -g -Wall -Werror -mcpu=v3 -fno-ident -I/usr/include/x86_64-linux-gnu" -type connect_event kernel connect.c
