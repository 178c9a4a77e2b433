// SPDX-License-Identifier: Apache-2.0

package gpu

import "unsafe"

// What NVML writes to, as its header lays it out where a pointer has 64 bits.
// Sizes and places are held by layout_test.go.

// handle is a pointer of the library's.
type handle uintptr

type pciInfo struct {
	busLegacy                            [16]byte
	domain, bus, device, id, subsystemID uint32
	bus32                                [32]byte
}

type utilization struct{ gpu, memory uint32 }

type memory struct{ total, free, used uint64 }

type memoryV2 struct {
	version, _                  uint32
	total, reserved, free, used uint64
}

// processInfo is what versions 2 and 3 of the calls write, but for drivers 530 to
// 535.86, whose entries have 8 bytes more.
type processInfo struct {
	pid, _                    uint32
	memory                    uint64
	instance, computeInstance uint32
}

const wideProcessInfo = 32

type processUtilization struct {
	pid, _               uint32
	stamp                uint64
	sm, memory, enc, dec uint32
}

type eventData struct {
	device                    handle
	kind, data                uint64
	instance, computeInstance uint32
}

type gpmMetric struct {
	id     uint32
	result result
	value  float64
	names  [3]uintptr
}

// gpmMetrics has as many entries as the newest header: a library looks at those
// that are asked for, and must never write beyond.
type gpmMetrics struct {
	version, count  uint32
	earlier, latest handle
	metrics         [477]gpmMetric
}

type gpmSupport struct{ version, supported uint32 }

type fieldValue struct {
	id, scope uint32
	_, _      int64 // when, and how long it took
	kind      uint32
	result    result
	value     [8]byte
}

type attributes struct {
	multiprocessors, copyEngines, decoders, encoders, jpeg, ofa, slices, computeSlices uint32
	memoryMB                                                                           uint64
}

type temperatureV1 struct {
	version, sensor uint32
	value           int32
}

type fabricInfoV2 struct {
	version uint32
	cluster [16]byte
	status  result
	clique  uint32
	state   uint8
	_       [3]byte
	health  uint32
}

// Version words: the size of the struct below the number of its version.
const (
	versionMemory      = uint32(unsafe.Sizeof(memoryV2{})) | 2<<24
	versionTemperature = uint32(unsafe.Sizeof(temperatureV1{})) | 1<<24
	versionFabric      = uint32(unsafe.Sizeof(fabricInfoV2{})) | 2<<24
	versionGPM         = 1 // it has numbers of its own
)

// number of a field's value, whose type it tells itself.
func (f *fieldValue) number() (float64, bool) {
	p := unsafe.Pointer(&f.value)
	switch f.kind {
	case 0:
		return *(*float64)(p), true
	case 1:
		return float64(*(*uint32)(p)), true
	case 2, 3:
		return float64(*(*uint64)(p)), true
	case 4:
		return float64(*(*int64)(p)), true
	case 5:
		return float64(*(*int32)(p)), true
	case 6:
		return float64(*(*uint16)(p)), true
	}
	return 0, false
}
