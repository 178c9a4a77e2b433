// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// spin is a kernel that turns in a loop so many times. It reads a clock, and
// writes what it has made of it at the end, so that no compiler leaves it out.
const spin = `.version 6.4
.target sm_60
.address_size 64
.visible .entry spin(.param .u64 turns, .param .u64 out)
{
	.reg .u64 %left, %to, %now, %sum;
	.reg .pred %more;
	ld.param.u64 %left, [turns];
	ld.param.u64 %to, [out];
	cvta.to.global.u64 %to, %to;
	mov.u64 %sum, 0;
again:
	mov.u64 %now, %clock64;
	xor.b64 %sum, %sum, %now;
	sub.u64 %left, %left, 1;
	setp.ne.u64 %more, %left, 0;
	@%more bra again;
	st.global.u64 [%to], %sum;
	ret;
}
`

// cuda is the driver's own interface to compute, of the first device that this
// process sees. A context is a thread's: calls are made from one.
type cuda struct {
	fn     map[string]uintptr
	device int32
	kernel uintptr
	out    uint64
}

// waits sleeping, and not spinning, while the GPU works.
const blockingSync = 4

var cudaFunctions = []string{
	"cuInit", "cuDeviceGet", "cuDevicePrimaryCtxSetFlags_v2", "cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2", "cuCtxSetCurrent",
	"cuModuleLoadData", "cuModuleGetFunction", "cuMemAlloc_v2", "cuLaunchKernel", "cuCtxSynchronize",
}

// openCUDA makes a context with the kernel in it, and room for what it writes.
func openCUDA(path string) (*cuda, error) {
	lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load CUDA's driver library: %w", err)
	}
	c := &cuda{fn: map[string]uintptr{}}
	for _, name := range cudaFunctions {
		if c.fn[name], err = purego.Dlsym(lib, name); err != nil {
			return nil, fmt.Errorf("the library lacks %s: its driver is too old", name)
		}
	}
	var context, module uintptr
	text, name := []byte(spin+"\x00"), []byte("spin\x00")
	for _, call := range []func() error{
		func() error { return c.call("cuInit", 0) },
		func() error { return c.call("cuDeviceGet", uintptr(unsafe.Pointer(&c.device)), 0) },
		func() error { return c.call("cuDevicePrimaryCtxSetFlags_v2", uintptr(c.device), blockingSync) },
		func() error {
			return c.call("cuDevicePrimaryCtxRetain", uintptr(unsafe.Pointer(&context)), uintptr(c.device))
		},
		func() error { return c.call("cuCtxSetCurrent", context) },
		func() error {
			return c.call("cuModuleLoadData", uintptr(unsafe.Pointer(&module)), uintptr(unsafe.Pointer(&text[0])))
		},
		func() error {
			return c.call("cuModuleGetFunction", uintptr(unsafe.Pointer(&c.kernel)), module, uintptr(unsafe.Pointer(&name[0])))
		},
		func() (err error) { c.out, err = c.allocate(8); return err },
		// What is loaded at the first use is loaded by now.
		func() error { return c.turn(1) },
	} {
		if err := call(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// call asks the driver. What args point to is in Go's memory, which does not move.
//
//go:uintptrescapes
func (c *cuda) call(name string, args ...uintptr) error {
	if r, _, _ := purego.SyscallN(c.fn[name], args...); int32(r) != 0 {
		return fmt.Errorf("%s: CUDA error %d", strings.TrimSuffix(name, "_v2"), int32(r))
	}
	return nil
}

// allocate takes memory of the GPU.
func (c *cuda) allocate(bytes uint64) (at uint64, err error) {
	err = c.call("cuMemAlloc_v2", uintptr(unsafe.Pointer(&at)), uintptr(bytes))
	return at, err
}

// turn runs the kernel and waits for its end.
func (c *cuda) turn(turns uint64) error {
	params := [2]unsafe.Pointer{unsafe.Pointer(&turns), unsafe.Pointer(&c.out)}
	// One warp: that the GPU is busy is all that is wanted.
	err := c.call("cuLaunchKernel", c.kernel, 1, 1, 1, 32, 1, 1, 0, 0, uintptr(unsafe.Pointer(&params)), 0)
	if err != nil {
		return err
	}
	return c.call("cuCtxSynchronize")
}

func (c *cuda) close() error { return c.call("cuDevicePrimaryCtxRelease_v2", uintptr(c.device)) }
