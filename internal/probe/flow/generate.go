// SPDX-License-Identifier: Apache-2.0

package flow

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -cflags "-O2 -g -Wall -Werror -mcpu=v3 -fno-ident -I/usr/include/x86_64-linux-gnu" -type flow_key -type flow_value -type rest_key -type rest_value -type flow_slot kernel flow.c
