// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"fmt"
	"net"
	"os"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// childEnv makes this binary a process that makes a socket, tells its cookie
// and ends; what it is called comes from its file's name.
const childEnv = "ORB8_TEST_SOCKET_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(child())
	}
	if group := os.Getenv(insideEnv); group != "" {
		if err := inside(group); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func child() int {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 1
	}
	_ = raw.Control(func(fd uintptr) {
		cookie, _ := unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE)
		fmt.Print(cookie)
	})
	return 0
}
