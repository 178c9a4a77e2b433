// SPDX-License-Identifier: Apache-2.0

// Package render holds how flows, events and status look: as tables for people,
// as plain columns and as JSON lines for programs. It never asks anything of
// anybody, and lets nothing from the wire (names, units, processes, errors)
// reach a terminal unescaped. The command line reads it.
package render

import (
	"bytes"
	"encoding/json"
	"io"
)

// JSON writes a value as one line.
func JSON(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(escapeJSON(b.Bytes()))
	return err
}
