// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// leastDescriptors is what an agent needs to start and to answer, with one
// interface: it was seen to fail below 64. Each further interface takes some.
const leastDescriptors = 128

var errDescriptors = errors.New("out of file descriptors")

// checkDescriptors tries whether there are enough. Later, a lack of them looks
// like something else: a kernel is asked what it can do, and seems to lack it.
func checkDescriptors() (err error) {
	var taken []int
	defer func() {
		for _, fd := range taken {
			_ = unix.Close(fd)
		}
	}()
	first, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	for err == nil && len(taken) < leastDescriptors {
		taken = append(taken, first)
		first, err = unix.FcntlInt(uintptr(taken[0]), unix.F_DUPFD_CLOEXEC, 0)
	}
	if err == nil {
		taken = append(taken, first)
	}
	if short(err) {
		return fmt.Errorf("%w: %d of the %d that the agent needs at the least are free, %s", errDescriptors, len(taken), leastDescriptors, advice())
	}
	return nil // what else fails is for others to tell
}

func short(err error) bool { return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) }

// advice says what to do about a lack of descriptors. Go has raised the soft
// limit to the hard one.
func advice() string {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return "raise the limit (ulimit -n, LimitNOFILE=)"
	}
	return fmt.Sprintf("limit %d: raise it (ulimit -n, LimitNOFILE=)", limit.Cur)
}

// explainDescriptors names the cause of an error that comes of a lack of them.
func explainDescriptors(err error) error {
	if !short(err) {
		return err
	}
	return fmt.Errorf("%w, %s: %w", errDescriptors, advice(), err)
}
