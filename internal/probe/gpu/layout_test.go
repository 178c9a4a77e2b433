// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"math"
	"testing"
	"unsafe"

	"github.com/orb8/orb8/internal/event"
)

// The numbers are what a C compiler says of NVML's header, 13.4.
func TestLayoutIsThatOfTheHeader(t *testing.T) {
	for _, c := range []struct {
		what       string
		have, want uintptr
	}{
		{"pciInfo", unsafe.Sizeof(pciInfo{}), 68},
		{"pciInfo.domain", unsafe.Offsetof(pciInfo{}.domain), 16},
		{"pciInfo.bus32", unsafe.Offsetof(pciInfo{}.bus32), 36},
		{"utilization", unsafe.Sizeof(utilization{}), 8},
		{"memory", unsafe.Sizeof(memory{}), 24},
		{"memoryV2", unsafe.Sizeof(memoryV2{}), 40},
		{"memoryV2.total", unsafe.Offsetof(memoryV2{}.total), 8},
		{"memoryV2.used", unsafe.Offsetof(memoryV2{}.used), 32},
		{"processInfo", unsafe.Sizeof(processInfo{}), 24},
		{"processInfo.memory", unsafe.Offsetof(processInfo{}.memory), 8},
		{"processInfo.instance", unsafe.Offsetof(processInfo{}.instance), 16},
		{"processUtilization", unsafe.Sizeof(processUtilization{}), 32},
		{"processUtilization.stamp", unsafe.Offsetof(processUtilization{}.stamp), 8},
		{"processUtilization.sm", unsafe.Offsetof(processUtilization{}.sm), 16},
		{"eventData", unsafe.Sizeof(eventData{}), 32},
		{"eventData.instance", unsafe.Offsetof(eventData{}.instance), 24},
		{"gpmMetric", unsafe.Sizeof(gpmMetric{}), 40},
		{"gpmMetric.value", unsafe.Offsetof(gpmMetric{}.value), 8},
		{"gpmMetrics", unsafe.Sizeof(gpmMetrics{}), 19104},
		{"gpmMetrics.metrics", unsafe.Offsetof(gpmMetrics{}.metrics), 24},
		{"gpmSupport", unsafe.Sizeof(gpmSupport{}), 8},
		{"fieldValue", unsafe.Sizeof(fieldValue{}), 40},
		{"fieldValue.kind", unsafe.Offsetof(fieldValue{}.kind), 24},
		{"fieldValue.result", unsafe.Offsetof(fieldValue{}.result), 28},
		{"fieldValue.value", unsafe.Offsetof(fieldValue{}.value), 32},
		{"attributes", unsafe.Sizeof(attributes{}), 40},
		{"attributes.memoryMB", unsafe.Offsetof(attributes{}.memoryMB), 32},
		{"temperatureV1", unsafe.Sizeof(temperatureV1{}), 12},
		{"fabricInfoV2", unsafe.Sizeof(fabricInfoV2{}), 36},
		{"fabricInfoV2.status", unsafe.Offsetof(fabricInfoV2{}.status), 20},
		{"fabricInfoV2.state", unsafe.Offsetof(fabricInfoV2{}.state), 28},
		{"fabricInfoV2.health", unsafe.Offsetof(fabricInfoV2{}.health), 32},
		{"version of memory", uintptr(versionMemory), 0x2000028},
		{"version of fabric", uintptr(versionFabric), 0x2000024},
		{"version of temperature", uintptr(versionTemperature), 0x100000c},
	} {
		if c.have != c.want {
			t.Errorf("%s is %d, want %d", c.what, c.have, c.want)
		}
	}
}

func TestFieldTellsItsType(t *testing.T) {
	bytes := [8]byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	for kind, want := range map[uint32]float64{1: 0xfffffffe, 3: 0xfffffffffffffffe, 4: -2, 5: -2, 6: 0xfffe} {
		f := fieldValue{kind: kind, value: bytes}
		if v, ok := f.number(); !ok || v != want {
			t.Errorf("type %d: %v %v, want %v", kind, v, ok, want)
		}
	}
	f := fieldValue{kind: 7}
	if _, ok := f.number(); ok {
		t.Error("an unknown type has a value")
	}
}

func TestWhatIsNoNumberIsAbsent(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if r := known(v); r != (event.Reading{}) {
			t.Errorf("%v: %+v", v, r)
		}
	}
	if r := known(0.5); !r.Known || r.Value != 0.5 {
		t.Errorf("%+v", r)
	}
}
