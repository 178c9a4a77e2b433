// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usageError is a command line that makes no sense.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// flagError puts what pflag says into one line that tells what is allowed.
func flagError(cmd *cobra.Command, err error) error {
	var value *pflag.InvalidValueError
	var unknown *pflag.NotExistError
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return err
	case errors.As(err, &value):
		return usagef("--%s %q: %s", value.GetFlag().Name, value.GetValue(), allowed(value))
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		return usagef("unknown flag --%s%s", unknown.GetSpecifiedName(), meant(unknown.GetSpecifiedName(), flagNames(cmd)))
	}
	return usagef("%v", err)
}

// allowed tells what a flag takes; the types of pflag say only what they got.
func allowed(e *pflag.InvalidValueError) string {
	switch e.GetFlag().Value.Type() {
	case "uint32":
		if errors.Is(e, strconv.ErrRange) {
			return "too large: allowed are whole numbers from 1 to 4294967295"
		}
		return "not a number: allowed are whole numbers from 1 on"
	case "duration":
		return "not a time: allowed are times as 500ms, 30s or 5m"
	case "bool":
		return "allowed are true and false"
	}
	return e.Unwrap().Error()
}

func flagNames(cmd *cobra.Command) (names []string) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, "--"+f.Name)
		}
	})
	return names
}

// noArgs refuses arguments; noSuchCommand does so where a command is expected.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q", args[0])
	}
	return nil
}

func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return usagef("unknown command %q%s", args[0], meant(args[0], names))
}

// meant suggests the name that was probably meant.
func meant(typed string, names []string) string {
	best, least := "", 3
	for _, name := range names {
		bare := strings.TrimPrefix(name, "--")
		d := distance(typed, bare)
		if len(typed) > 1 && strings.HasPrefix(bare, typed) {
			d = 1
		}
		if d < least {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return " (did you mean " + best + "?)"
}

// distance is the number of letters to change, insert or delete (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
