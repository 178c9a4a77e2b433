// SPDX-License-Identifier: Apache-2.0

// Command traffic makes exact traffic between pods and says what it made: one
// line of JSON for each connection, with its tuple and the bytes that the
// application sent and received. It never estimates; what did not arrive is an
// error. The end-to-end tests read it.
//
//	traffic serve -port 7000
//	traffic send -to 10.0.0.1:7000 -bytes 100000 -back 5000
//	traffic send -to 10.0.0.1:7000 -udp -bytes 1000 -back 10 -times 5
//	traffic shake -to 10.96.0.1:443
//	traffic resolve -to 10.96.0.10:53 -name kubernetes.default.svc.cluster.local
//	traffic lookup -name kubernetes.default
//	traffic tls -to 203.0.113.10:443 -server-name api.example.com -alpn h2,http/1.1
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("say what to do: serve, send, shake, resolve, lookup or tls")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	switch args[0] {
	case "serve":
		port := flags.Int("port", 7000, "serve this port, of TCP and UDP")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return serve(ctx, *port)
	case "send":
		var s sending
		flags.StringVar(&s.to, "to", "", "server, HOST:PORT")
		flags.BoolVar(&s.udp, "udp", false, "UDP instead of TCP")
		flags.IntVar(&s.bytes, "bytes", 1000, "bytes of each frame to the server, its head of 8 included")
		flags.IntVar(&s.back, "back", 100, "bytes that the server answers to each")
		flags.IntVar(&s.times, "times", 1, "frames in one connection; 0 until ended")
		flags.DurationVar(&s.every, "every", 0, "pause between two frames")
		flags.DurationVar(&s.linger, "linger", 0, "stay this long after the connection has closed")
		flags.DurationVar(&s.patience, "patience", 10*time.Second, "try this long to reach the server")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return send(ctx, s)
	case "shake":
		to := flags.String("to", "", "server, HOST:PORT")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return shake(ctx, *to)
	case "resolve":
		to := flags.String("to", "10.96.0.10:53", "name server, HOST:PORT")
		name := flags.String("name", "kubernetes.default.svc.cluster.local", "name to ask for")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return resolve(*to, *name)
	case "lookup":
		name := flags.String("name", "kubernetes.default", "name to ask for")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return lookup(ctx, *name)
	case "tls":
		return runCall(ctx, flags, args[1:])
	}
	return fmt.Errorf("%q: allowed are serve, send, shake, resolve, lookup and tls", args[0])
}

func runCall(ctx context.Context, flags *flag.FlagSet, args []string) error {
	var c calling
	flags.StringVar(&c.to, "to", "", "server, HOST:PORT")
	flags.StringVar(&c.serverName, "server-name", "", "say that this server is meant; empty: do not say it")
	flags.StringVar(&c.most, "max", "1.3", "offer TLS up to this version: 1.2 or 1.3")
	flags.IntVar(&c.times, "times", 1, "connections, one after the other in one session")
	flags.IntVar(&c.parts, "parts", 1, "segments that the ClientHello is sent in")
	alpn := flags.String("alpn", "", "offer these protocols, separated by commas")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *alpn != "" {
		c.alpn = strings.Split(*alpn, ",")
	}
	return call(ctx, c)
}
