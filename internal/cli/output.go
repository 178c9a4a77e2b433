// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/orb8/orb8/internal/render"
)

// choice is a flag with a fixed set of values. It implements pflag.Value.
type choice struct {
	value   string
	allowed []string
	// Other words for some of them.
	also map[string]string
}

func (c *choice) Set(s string) error {
	if word, ok := c.also[s]; ok {
		s = word
	}
	if !slices.Contains(c.allowed, s) {
		return fmt.Errorf("allowed are %s", strings.Join(c.allowed, ", "))
	}
	c.value = s
	return nil
}

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return strings.Join(c.allowed, "|") }

// add makes the flag; the first value is the default.
func (c *choice) add(cmd *cobra.Command, name, short, usage string) {
	c.value = c.allowed[0]
	cmd.Flags().VarP(c, name, short, usage)
	// Fails only for a flag that does not exist.
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(c.allowed, cobra.ShellCompDirectiveNoFileComp))
}

// outputFlag is -o.
type outputFlag struct{ choice }

func (o *outputFlag) add(cmd *cobra.Command) {
	o.allowed = []string{"table", "wide", "json"}
	o.choice.add(cmd, "output", "o", "how to show it; json is one object a line")
}

func (o *outputFlag) json() bool { return o.value == "json" }

// screen is what standard output is connected to.
type screen struct {
	terminal      bool
	width, height int
}

func (a *app) screen() screen {
	file, ok := a.cfg.Stdout.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return screen{}
	}
	s := screen{terminal: true}
	s.width, s.height, _ = term.GetSize(int(file.Fd()))
	// A serial console does not know its size; its user may have said it.
	if s.width <= 0 {
		s.width = a.number("COLUMNS", 80)
	}
	if s.height <= 0 {
		s.height = a.number("LINES", 24)
	}
	return s
}

func (a *app) number(variable string, otherwise int) int {
	if n, err := strconv.Atoi(a.cfg.Getenv(variable)); err == nil && n > 0 {
		return n
	}
	return otherwise
}

// style is how tables look on the screen.
func (a *app) style(o *outputFlag, s screen) render.Style {
	return render.Style{
		Human: s.terminal,
		Color: s.terminal && a.cfg.Getenv("NO_COLOR") == "" && a.cfg.Getenv("TERM") != "dumb",
		Wide:  o.value == "wide",
		Width: s.width,
	}
}
