// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// inMatrix are the types of interface, as `ip link add type` names them, and
// the protocols that the kernels of the matrix (test/kernels) have. Where the
// running kernel lacks one of these, its tests still run there.
func inMatrix() []string {
	return []string{"bond", "dummy", "geneve", "gre", "ipip", "ipvlan", "sctp", "sit", "vlan", "vrf", "wireguard"}
}

// RequireDevice skips the test where the kernel does not make interfaces of
// these types ("vlan", "bond", …). In the kernel matrix that is a failure, and
// with ORB8_REQUIRE_KERNEL=1 it is one for a type that the matrix lacks, so
// that nothing is skipped everywhere.
func RequireDevice(t testing.TB, types ...string) {
	t.Helper()
	if len(types) == 0 {
		return
	}
	scratch := NewNetns(t)
	for _, kind := range types {
		var err error
		scratch.Do(func() { err = tryType(kind) })
		// Any other failure is for what the type wants to be told.
		if errors.Is(err, unix.EOPNOTSUPP) {
			missing(t, kind)
		}
	}
}

// tryType asks the kernel for an interface with nothing but its type.
func tryType(kind string) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated("try-"+kind)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// RequireSCTP is RequireDevice for SCTP sockets.
func RequireSCTP(t testing.TB) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		missing(t, "sctp")
		return
	}
	_ = unix.Close(fd)
}

func missing(t testing.TB, what string) {
	t.Helper()
	switch {
	case Emulated():
		t.Fatalf("a kernel of the matrix has no %s: add its module to test/kernels/run.sh, or take it off the list in bpftest", what)
	case slices.Contains(inMatrix(), what):
		t.Skipf("this kernel has no %s; the kernel matrix runs it", what)
	default:
		skip(t, "this kernel has no %s, and the kernel matrix does not run it", what)
	}
}

// Emulated tells that the test runs in the kernel matrix (test/kernels), on a
// machine whose time says nothing: bars in milliseconds are not for it.
func Emulated() bool { return os.Getenv("ORB8_KERNEL_MATRIX") == "1" }
