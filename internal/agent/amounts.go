// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// cores is an amount of CPU: 0.2, 20% or 200m are a fifth of one core.
type cores float64

const coresForm = "must be a number of cores such as 0.5, or 50%, or 500m"

func (c *cores) Set(text string) error {
	number, scale := text, 1.0
	if n, ok := strings.CutSuffix(text, "%"); ok {
		number, scale = n, 100
	} else if n, ok := strings.CutSuffix(text, "m"); ok {
		number, scale = n, 1000
	}
	v, err := decimal(number)
	if err != nil {
		return errors.New(coresForm)
	}
	*c = cores(v / scale)
	return nil
}

func (c *cores) String() string { return strconv.FormatFloat(float64(*c), 'g', -1, 64) }
func (c *cores) Type() string   { return "cores" }

func coresText(c float64) string { return fmt.Sprintf("%.4g cores", c) }

// size is an amount of memory: bytes, or with a unit.
type size uint64

const sizeForm = "must be a number of bytes, or such as 256MiB (also Mi, MB, M; K, G alike)"

// Set takes units in any case.
func (s *size) Set(text string) error {
	rest, _ := strings.CutSuffix(strings.ToUpper(text), "B")
	rest, binary := strings.CutSuffix(rest, "I")
	base, power := 1e3, 0.0
	if binary {
		base = 1 << 10
	}
	if n := len(rest); n > 0 {
		power = float64(strings.IndexByte("KMG", rest[n-1]) + 1)
	}
	if power > 0 {
		rest = strings.TrimRight(rest[:len(rest)-1], " ")
	} else if binary {
		return errors.New(sizeForm)
	}
	v, err := decimal(rest)
	scale := math.Pow(base, power)
	if err != nil || v*scale >= 1<<53 {
		return errors.New(sizeForm)
	}
	*s = size(math.Round(v * scale))
	return nil
}

func (s *size) String() string { return sizeText(uint64(*s)) }
func (s *size) Type() string   { return "size" }

// sizeText is exact for whole units, and good to a tenth of a MiB otherwise.
func sizeText(n uint64) string {
	switch {
	case n == 0:
		return "0"
	case n%(1<<30) == 0:
		return fmt.Sprintf("%dGiB", n>>30)
	case n%(1<<20) == 0:
		return fmt.Sprintf("%dMiB", n>>20)
	case n < 1<<20:
		return fmt.Sprintf("%dB", n)
	}
	return fmt.Sprintf("%.1fMiB", float64(n)/(1<<20))
}

// decimal is a number as people write it: digits, and perhaps a point.
func decimal(text string) (float64, error) {
	if text == "" || len(text) > 20 || strings.Trim(text, "0123456789.") != "" {
		return 0, errors.New("not a number")
	}
	return strconv.ParseFloat(text, 64)
}
