// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"
)

// function is one of NVML's that is used.
type function uint8

const (
	fnInit function = iota
	fnShutdown
	fnCount
	fnHandle
	fnUUID
	// A library without those above is not used; without one of the others it says
	// less.
	fnDriverVersion
	fnName
	fnPCI
	fnMinor
	fnMIGMode
	fnMIGMost
	fnMIGHandle
	fnInstance
	fnComputeInstance
	fnAttributes
	fnUtilization
	fnEncoder
	fnDecoder
	fnMemory2
	fnMemory
	fnPower
	fnPowerLimit
	fnTemperature
	fnTemperatureV
	fnClock
	fnThrottle
	fnPCIe
	fnFields
	fnLinkState
	fnComputeMode
	fnFabric
	fnCompute
	fnGraphics
	fnMPS
	fnProcessUtilization
	fnGPMSupport
	fnGPMAlloc
	fnGPMFree
	fnGPMSample
	fnGPMSampleMIG
	fnGPMMetrics
	fnEventsCreate
	fnEventsSupported
	fnEventsRegister
	fnEventsWait
	fnEventsFree
	functions
)

// symbols are the functions' names; where there are two, an older library has
// the second, with the same parameters.
var symbols = [functions]string{
	fnInit:               "nvmlInit_v2",
	fnShutdown:           "nvmlShutdown",
	fnCount:              "nvmlDeviceGetCount_v2",
	fnHandle:             "nvmlDeviceGetHandleByIndex_v2",
	fnUUID:               "nvmlDeviceGetUUID",
	fnDriverVersion:      "nvmlSystemGetDriverVersion",
	fnName:               "nvmlDeviceGetName",
	fnPCI:                "nvmlDeviceGetPciInfo_v3",
	fnMinor:              "nvmlDeviceGetMinorNumber",
	fnMIGMode:            "nvmlDeviceGetMigMode",
	fnMIGMost:            "nvmlDeviceGetMaxMigDeviceCount",
	fnMIGHandle:          "nvmlDeviceGetMigDeviceHandleByIndex",
	fnInstance:           "nvmlDeviceGetGpuInstanceId",
	fnComputeInstance:    "nvmlDeviceGetComputeInstanceId",
	fnAttributes:         "nvmlDeviceGetAttributes_v2",
	fnUtilization:        "nvmlDeviceGetUtilizationRates",
	fnEncoder:            "nvmlDeviceGetEncoderUtilization",
	fnDecoder:            "nvmlDeviceGetDecoderUtilization",
	fnMemory2:            "nvmlDeviceGetMemoryInfo_v2",
	fnMemory:             "nvmlDeviceGetMemoryInfo",
	fnPower:              "nvmlDeviceGetPowerUsage",
	fnPowerLimit:         "nvmlDeviceGetEnforcedPowerLimit",
	fnTemperature:        "nvmlDeviceGetTemperature",
	fnTemperatureV:       "nvmlDeviceGetTemperatureV",
	fnClock:              "nvmlDeviceGetClockInfo",
	fnThrottle:           "nvmlDeviceGetCurrentClocksEventReasons nvmlDeviceGetCurrentClocksThrottleReasons",
	fnPCIe:               "nvmlDeviceGetPcieThroughput",
	fnFields:             "nvmlDeviceGetFieldValues",
	fnLinkState:          "nvmlDeviceGetNvLinkState",
	fnComputeMode:        "nvmlDeviceGetComputeMode",
	fnFabric:             "nvmlDeviceGetGpuFabricInfoV",
	fnCompute:            "nvmlDeviceGetComputeRunningProcesses_v3 nvmlDeviceGetComputeRunningProcesses_v2",
	fnGraphics:           "nvmlDeviceGetGraphicsRunningProcesses_v3 nvmlDeviceGetGraphicsRunningProcesses_v2",
	fnMPS:                "nvmlDeviceGetMPSComputeRunningProcesses_v3 nvmlDeviceGetMPSComputeRunningProcesses_v2",
	fnProcessUtilization: "nvmlDeviceGetProcessUtilization",
	fnGPMSupport:         "nvmlGpmQueryDeviceSupport",
	fnGPMAlloc:           "nvmlGpmSampleAlloc",
	fnGPMFree:            "nvmlGpmSampleFree",
	fnGPMSample:          "nvmlGpmSampleGet",
	fnGPMSampleMIG:       "nvmlGpmMigSampleGet",
	fnGPMMetrics:         "nvmlGpmMetricsGet",
	fnEventsCreate:       "nvmlEventSetCreate",
	fnEventsSupported:    "nvmlDeviceGetSupportedEventTypes",
	fnEventsRegister:     "nvmlDeviceRegisterEvents",
	fnEventsWait:         "nvmlEventSetWait_v2",
	fnEventsFree:         "nvmlEventSetFree",
}

// result is how NVML answers a call.
type result uint32

const (
	success          result = 0
	uninitialized    result = 1
	invalidArgument  result = 2
	notSupported     result = 3
	noPermission     result = 4
	notFound         result = 6
	sizeTooSmall     result = 7
	driverNotLoaded  result = 9
	timedOut         result = 10
	functionNotFound result = 13
	gpuLost          result = 15
	resetRequired    result = 16
	versionMismatch  result = 18
	deprecated       result = 26
)

// Error says what a user can make of it.
func (r result) Error() string {
	switch r {
	case noPermission:
		return "NVML: no permission: the agent needs /dev/nvidiactl and /dev/nvidia*"
	case driverNotLoaded:
		return "NVML: the driver is not loaded"
	case functionNotFound:
		return "NVML: the library lacks the function"
	case gpuLost:
		return "NVML: the GPU has fallen off the bus"
	case resetRequired:
		return "NVML: the GPU needs a reset"
	case versionMismatch:
		return "NVML: library and driver are of different versions: restart what holds the old driver"
	}
	return fmt.Sprintf("NVML: error %d", uint32(r))
}

// ErrNoLibrary is what Open says on a machine without NVIDIA's driver.
var ErrNoLibrary = errors.New("no libnvidia-ml.so.1")

// library is NVML, loaded. Its calls may be made from any goroutine.
type library struct {
	loaded uintptr
	fn     [functions]uintptr
	// Names of what it lacks, in the order of functions.
	missing []string
	// Bytes from one process to the next, in what tells of processes.
	processStride int
	// What must lie between two samples of GPM.
	gap time.Duration

	mu sync.Mutex
	// Buffers that no call is using.
	spare []*scratch
}

// load opens the first library of paths that there is and that the driver takes,
// and starts it. What a container was given when it was made is the old one once
// the driver has been replaced.
func load(paths []string) (*library, error) {
	err := ErrNoLibrary
	for _, path := range paths {
		loaded, failed := openLibrary(path)
		if failed == nil {
			l := &library{loaded: loaded, processStride: int(unsafe.Sizeof(processInfo{})), gap: gpmGap}
			if failed = l.start(); failed == nil {
				return l, nil
			}
			failed = errors.Join(failed, purego.Dlclose(loaded))
		} else if strings.Contains(failed.Error(), "No such file") {
			continue
		}
		if err == ErrNoLibrary {
			err = failed // it is there, and cannot be used
		}
	}
	return nil, err
}

// openLibrary stays on its thread, which is where the loader keeps why it could
// not.
func openLibrary(path string) (uintptr, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
}

// start finds the functions, and has the library begin.
func (l *library) start() error {
	for f, names := range symbols {
		for name := range strings.FieldsSeq(names) {
			if l.fn[f] = l.symbol(name); l.fn[f] != 0 {
				break
			}
		}
		if l.fn[f] != 0 {
			continue
		}
		name, _, _ := strings.Cut(names, " ")
		if function(f) <= fnUUID {
			return fmt.Errorf("the library lacks %s: its driver is too old", name)
		}
		l.missing = append(l.missing, name)
	}
	// By this the drivers are told apart whose version 3 is a wider one.
	if l.symbol("nvmlDeviceGetComputeRunningProcesses_v3") != 0 && l.symbol("nvmlDeviceGetConfComputeMemSizeInfo") != 0 &&
		l.symbol("nvmlDeviceGetRunningProcessDetailList") == 0 {
		l.processStride = wideProcessInfo
	}
	if r := l.call(fnInit); r != success {
		return r
	}
	return nil
}

func (l *library) symbol(name string) uintptr {
	p, err := purego.Dlsym(l.loaded, name)
	if err != nil {
		return 0
	}
	return p
}

// call asks the library. What args point to is in Go's memory, which does not
// move; the library keeps none of it.
//
//go:uintptrescapes
func (l *library) call(f function, args ...uintptr) result {
	if l.fn[f] == 0 {
		return functionNotFound
	}
	r, _, _ := purego.SyscallN(l.fn[f], args...)
	return result(uint32(r))
}

// close gives back all that the library holds of the driver, and unloads it, so
// that the next load finds another driver's. No call may be under way.
func (l *library) close() error {
	var err error
	if r := l.call(fnShutdown); r != success {
		err = r
	}
	return errors.Join(err, purego.Dlclose(l.loaded))
}

// take is a buffer for one call, or a row of them. One that is in a call that
// hangs is not given back.
func (l *library) take() *scratch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.spare); n > 0 {
		s := l.spare[n-1]
		l.spare = l.spare[:n-1]
		return s
	}
	return &scratch{processes: make([]byte, 64*wideProcessInfo), used: make([]processUtilization, 64)}
}

func (l *library) put(s *scratch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spare = append(l.spare, s)
}

// scratch is what calls write to.
type scratch struct {
	text        [96]byte
	number      uint32
	number2     uint32
	long        uint64
	handle      handle
	pci         pciInfo
	utilization utilization
	memory      memory
	memory2     memoryV2
	temperature temperatureV1
	attributes  attributes
	fabric      fabricInfoV2
	support     gpmSupport
	metrics     gpmMetrics
	event       eventData
	fields      [fieldChunk]fieldValue
	processes   []byte
	used        []processUtilization
}

// string is what a call has written to text.
func (s *scratch) string() string {
	text, _, _ := strings.Cut(string(s.text[:]), "\x00")
	return text
}
