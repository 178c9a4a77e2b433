// SPDX-License-Identifier: Apache-2.0

package bpftest

// SkBuff is struct __sk_buff: what a test run tells the kernel of a packet
// beside its bytes. Only the fields that tests set have names.
type SkBuff struct {
	_       [40]byte
	Ifindex uint32
	_       [120]byte
	GSOSegs uint32
	_       [8]byte
	GSOSize uint32
	_       [12]byte
}
