// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// terminal is the script command
//
//	[!] terminal COLUMNS [-int TIME] PROGRAM ARGS...
//
// It runs a program with its output on a terminal of that width, interrupts it
// (Ctrl-C) after TIME, and leaves what the terminal got in the file "tty":
// escape characters as ␛, line ends as they are in files.
func terminal(ts *testscript.TestScript, neg bool, args []string) {
	columns, err := strconv.Atoi(args[0])
	ts.Check(err)
	args = args[1:]
	var interrupt time.Duration
	if args[0] == "-int" {
		interrupt, err = time.ParseDuration(args[1])
		ts.Check(err)
		args = args[2:]
	}
	control, tty, err := openTerminal(columns)
	ts.Check(err)
	defer control.Close()

	program, err := exec.LookPath(args[0])
	for _, dir := range strings.Split(ts.Getenv("PATH"), string(os.PathListSeparator)) {
		if p, e := exec.LookPath(dir + "/" + args[0]); e == nil {
			program, err = p, nil
			break
		}
	}
	ts.Check(err)
	cmd := exec.Command(program, args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), tty, tty
	for _, name := range []string{"NEAR_SERVER", "NEAR_AGENT", "INSIDE", "TZ", "TERM", "NO_COLOR", "ORB8_AGENT", "ORB8_SERVER"} {
		if v := ts.Getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	ts.Check(cmd.Start())
	tty.Close()
	if interrupt > 0 {
		time.AfterFunc(interrupt, func() { cmd.Process.Signal(os.Interrupt) })
	}
	// The reading side fails, instead of ending, when the last writer is gone.
	out, _ := io.ReadAll(control)
	failed := cmd.Wait()
	out = bytes.ReplaceAll(bytes.ReplaceAll(out, []byte("\r\n"), []byte("\n")), []byte("\x1b"), []byte("␛"))
	if !bytes.HasSuffix(out, []byte("\n")) {
		// Golden files end with a line.
		out = append(out, '\n')
	}
	ts.Check(os.WriteFile(ts.MkAbs("tty"), out, 0o600))
	if (failed != nil) != neg {
		ts.Fatalf("%v: %s", failed, out)
	}
}

func openTerminal(columns int) (control, tty *os.File, err error) {
	control, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(control.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, fmt.Errorf("unlock the terminal: %w", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, fmt.Errorf("name the terminal: %w", err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)}); err != nil {
		return nil, nil, fmt.Errorf("size the terminal: %w", err)
	}
	tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	return control, tty, err
}
