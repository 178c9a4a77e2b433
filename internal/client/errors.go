// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Error is what went wrong in the words of its reader, and what to try next.
type Error struct {
	Text string
	// A command line.
	Try string
}

func (e *Error) Error() string { return e.Text + "; try: " + e.Try }

// ErrInterrupted says that the caller gave up before the answer was there.
var ErrInterrupted = errors.New("interrupted")

// explain puts a gRPC error into words. connected tells that the stream had
// been opened, so that a lost connection is told from one never made.
func (c *Client) explain(ctx context.Context, err error, connected bool) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ErrInterrupted
	}
	who := c.Address.String()
	st, _ := status.FromError(err)
	switch {
	case errors.Is(err, io.EOF), connected && gone(st.Code()):
		return c.doubted(&Error{who + " went away", c.command("status")})
	case st.Code() == codes.Unavailable:
		return c.doubted(c.unreachable(st.Message()))
	case st.Code() == codes.Unimplemented, st.Code() == codes.Internal && !connected, st.Code() == codes.Unknown && !connected:
		return &Error{who + " does not speak orb8.v1.Observer: another program listens there, or another version of orb8 (" + st.Message() + ")", c.start()}
	case st.Code() == codes.DeadlineExceeded:
		return c.doubted(&Error{who + " did not answer within " + answerTimeout.String(), c.command("status")})
	case st.Code() == codes.InvalidArgument:
		return &Error{who + " did not accept the question: " + st.Message(), "orb8 --help"}
	}
	// What it refuses comes with what helps.
	if refused, try, ok := strings.Cut(st.Message(), ": "); ok && st.Code() == codes.PermissionDenied {
		return &Error{who + ": " + refused, try}
	}
	return &Error{who + " could not answer: " + st.Message(), c.command("status")}
}

// doubted adds to a failure that it was to be feared.
func (c *Client) doubted(e *Error) *Error {
	if c.doubt == nil {
		return e
	}
	doubt := c.doubt()
	if doubt == "" {
		return e
	}
	return &Error{e.Text + ": " + doubt, e.Try}
}

// gone: how gRPC reports a peer that stopped or was killed in mid-stream.
func gone(c codes.Code) bool {
	return c == codes.Unavailable || c == codes.Canceled || c == codes.Aborted
}

// unreachable says why no connection could be made.
func (c *Client) unreachable(message string) *Error {
	who, why := c.Address.String(), c.dial.lastError()
	var explained *Error
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(why, &explained):
		return explained
	case why == nil && strings.Contains(message, "preface") && strings.Contains(message, "closed network connection"):
		// gRPC hung up itself, after connectTimeout without a word.
		return c.silent()
	case why == nil && strings.Contains(message, "preface"):
		return &Error{who + " accepts connections but does not speak gRPC: another program listens there", c.start()}
	case why == nil:
		return &Error{who + " went away", c.command("status")}
	case errors.As(why, &dns):
		return &Error{"cannot reach " + who + ": no address is known for " + dns.Name, "orb8 --agent ADDRESS status"}
	case errors.Is(why, fs.ErrPermission):
		return &Error{"cannot reach " + who + ": permission denied", "sudo " + c.command("status")}
	case errors.Is(why, fs.ErrNotExist):
		return &Error{"cannot reach " + who + ": there is no such socket", c.start()}
	case errors.Is(why, syscall.ECONNREFUSED):
		return &Error{"cannot reach " + who + ": connection refused, nothing listens there", c.start()}
	case errors.As(why, &timeout) && timeout.Timeout():
		return &Error{"cannot reach " + who + ": no reply within " + connectTimeout.String(), c.start()}
	}
	var op *net.OpError
	if errors.As(why, &op) {
		why = op.Err
	}
	return &Error{"cannot reach " + who + ": " + why.Error(), c.start()}
}

// silent: what a stopped or overloaded Observer looks like, and some other
// programs do, too.
func (c *Client) silent() *Error {
	return &Error{c.Address.String() + " accepts connections but does not answer: it hangs, or is another program", "orb8 --standalone status to look without it"}
}

// command is a command line that asks the same address.
func (c *Client) command(name string) string {
	switch c.Address.Role {
	case Standalone:
		return "sudo orb8 --standalone " + name
	case Server:
		return "orb8 --server " + c.Address.Place + " " + name
	}
	return "orb8 --agent " + c.Address.Place + " " + name
}

// start is how to get something that answers.
func (c *Client) start() string {
	switch c.Address.Role {
	case Server:
		return "orb8 --agent localhost status"
	case AgentPod:
		namespace, pod, _ := strings.Cut(c.Address.Place, "/")
		return "kubectl -n " + namespace + " describe pod " + pod
	}
	return startAgent
}

const startAgent = "sudo orb8-agent to start an agent, or sudo orb8 --standalone flows to look without one"
