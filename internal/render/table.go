// SPDX-License-Identifier: Apache-2.0

package render

import (
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Style is how the reader wants it.
type Style struct {
	// Human: units, local times and fitted columns, for a terminal. Else raw
	// numbers and cells without blanks, for programs.
	Human bool
	Color bool
	Wide  bool
	// Width of the terminal in characters; 0 is no limit.
	Width int
}

type tone string

const (
	plain  tone = ""
	bold   tone = "1"
	dim    tone = "2"
	red    tone = "31"
	green  tone = "32"
	yellow tone = "33"
	cyan   tone = "36"
)

func (s Style) paint(text string, t tone) string {
	if !s.Color || t == plain || text == "" {
		return text
	}
	return "\x1b[" + string(t) + "m" + text + "\x1b[0m"
}

// cell is one field of a row; an empty text is shown as "-".
type cell struct {
	text string
	tone tone
}

// column says how the cells of a column are shown.
type column struct {
	title string
	// Title over raw numbers, where it differs.
	raw   string
	right bool
	// fit: the cells may be cut in the middle to fit the terminal.
	fit bool
	// sentence: the cells keep their blanks, for programs too. Only the last
	// column may.
	sentence bool
	// wraps: the terminal may break its cells; also only the last column. What is usual
	// has room nevertheless.
	wraps bool
	// drop: a narrow terminal loses column 1 first, then 2 up to mostDrop; 0 stays
	// always.
	drop int
	// The width that its cells usually take, and raw ones where that is more.
	usual, usualRaw int
}

const (
	gap = "  "
	// Cut cells keep that much; columns are dropped before cells of a fitting
	// column get narrower than comfortable.
	minFit, comfortable = 10, 16
	mostDrop            = 14
)

// Table lines up rows and writes them when flushed. Between flushes it keeps
// only the widths, so that a table may go on for ever.
type Table struct {
	style   Style
	columns []column
	widths  []int
	rows    [][]cell
	titled  bool
}

func newTable(style Style, columns []column) *Table {
	t := &Table{style: style, columns: columns, widths: make([]int, len(columns))}
	for i := range columns {
		t.widths[i] = utf8.RuneCountInString(t.title(i))
	}
	return t
}

// reserve makes room for the usual cells: where rows come one by one, it keeps
// the columns still.
func (t *Table) reserve() {
	for i, c := range t.columns {
		usual := c.usual
		if !t.style.Human {
			usual = max(usual, c.usualRaw)
		}
		t.widths[i] = max(t.widths[i], usual)
	}
}

func (t *Table) title(i int) string {
	if c := t.columns[i]; !t.style.Human && c.raw != "" {
		return c.raw
	}
	return t.columns[i].title
}

// add takes a row, one cell a column.
func (t *Table) add(cells []cell) {
	for i := range cells {
		c := &cells[i]
		if t.style.Human || t.columns[i].sentence {
			c.text = Escape(c.text)
		} else {
			c.text = escapeWord(c.text)
		}
		if c.text == "" {
			c.text = "-"
		}
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c.text))
	}
	t.rows = append(t.rows, cells)
}

// Flush writes the header, once, and the rows added since the last Flush.
func (t *Table) Flush(w io.Writer) error {
	widths := t.fitted()
	var b strings.Builder
	if !t.titled {
		t.titled = true
		header := make([]cell, len(t.columns))
		for i := range header {
			header[i] = cell{t.title(i), bold}
		}
		t.line(&b, header, widths)
	}
	for _, row := range t.rows {
		t.line(&b, row, widths)
	}
	t.rows = t.rows[:0]
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *Table) line(b *strings.Builder, cells []cell, widths []int) {
	last := len(cells) - 1
	for last > 0 && widths[last] == 0 {
		last--
	}
	for i := 0; i <= last; i++ {
		if widths[i] == 0 {
			continue
		}
		text := cut(cells[i].text, widths[i])
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
		painted := t.style.paint(text, cells[i].tone)
		switch {
		case t.columns[i].right:
			b.WriteString(pad + painted)
		case i == last:
			b.WriteString(painted)
		default:
			b.WriteString(painted + pad)
		}
		if i < last {
			b.WriteString(gap)
		}
	}
	b.WriteByte('\n')
}

// fitted gives the widths for the terminal; 0 is a column that has no room.
func (t *Table) fitted() []int {
	widths := slices.Clone(t.widths)
	if t.style.Width == 0 || t.style.Wide {
		return widths
	}
	total := func(fit int) (n int) {
		for i, w := range widths {
			c := t.columns[i]
			if c.wraps {
				w = c.usual
			}
			if w == 0 {
				continue
			}
			if c.fit {
				w = min(w, fit)
			}
			n += w + len(gap)
		}
		return n - len(gap)
	}
	const untouched = 1 << 16
	for next := 1; next <= mostDrop && total(untouched) > t.style.Width && total(comfortable) > t.style.Width; next++ {
		// Not every table has a column of each.
		if i := slices.IndexFunc(t.columns, func(c column) bool { return c.drop == next }); i >= 0 {
			widths[i] = 0
		}
	}
	fit := untouched
	if widest := slices.Max(widths); total(widest) > t.style.Width {
		for fit = widest; fit > minFit && total(fit) > t.style.Width; fit-- {
		}
	}
	for i := range widths {
		if t.columns[i].fit {
			widths[i] = min(widths[i], fit)
		}
	}
	return widths
}

// cut shortens in the middle: what names end with (a port, a pod's suffix)
// tells them apart.
func cut(s string, width int) string {
	runes := []rune(s)
	if len(runes) <= width {
		return s
	}
	head := (width - 1) / 2
	return string(runes[:head]) + "…" + string(runes[len(runes)-(width-1-head):])
}

// Fit escapes a line and cuts it to the width of a terminal.
func Fit(line string, width int) string {
	runes := []rune(Escape(line))
	if len(runes) > width {
		runes = append(runes[:max(width-1, 0)], '…')
	}
	return string(runes)
}
