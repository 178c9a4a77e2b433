// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"

	"github.com/spf13/pflag"

	"github.com/orb8/orb8/internal/client"
)

// addressFlags say whom to ask.
type addressFlags struct {
	agent, server string
	standalone    bool
	flags         *pflag.FlagSet

	told *client.Address
}

func (f *addressFlags) add(flags *pflag.FlagSet) {
	f.flags = flags
	flags.StringVar(&f.agent, "agent", "", "ask the agent at `HOST:PORT` (port 9090 if left out) or unix:///PATH")
	flags.StringVar(&f.server, "server", "", "ask the server at `HOST:PORT` (port 8080 if left out)")
	flags.BoolVar(&f.standalone, "standalone", false, "look by itself, without an agent (root)")
}

// check refuses what contradicts itself before anything is done.
func (f *addressFlags) check() error {
	var told []string
	for _, name := range []string{"agent", "server", "standalone"} {
		if f.flags.Changed(name) && (name != "standalone" || f.standalone) {
			told = append(told, "--"+name)
		}
	}
	if len(told) > 1 {
		return usagef("%s and %s exclude each other: give one of --agent, --server and --standalone", told[0], told[1])
	}
	var a client.Address
	var err error
	switch {
	case f.flags.Changed("agent"):
		a, err = client.ParseAgent(f.agent)
	case f.flags.Changed("server"):
		a, err = client.ParseServer(f.server)
	default:
		return nil
	}
	var explained *client.Error
	if errors.As(err, &explained) {
		return err
	}
	if err != nil {
		return usagef("%s %v", told[0], err)
	}
	f.told = &a
	return nil
}

// connect finds whom to ask.
func (a *app) connect(ctx context.Context) (client.Observer, error) {
	return client.Find(ctx, client.Where{
		Address:    a.address.told,
		Standalone: a.address.standalone,
		Getenv:     a.cfg.Getenv,
		Nearby:     a.cfg.Nearby,
		Start:      a.cfg.Standalone,
		MayStart:   a.cfg.MayStart,
		Say:        a.say,
	})
}
