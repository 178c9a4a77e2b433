// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/ulikunitz/xz"
)

// deb is what a Debian package holds.
type deb struct {
	control string // the package's own description
	files   []entry
}

// readDeb takes a package apart: an ar archive of two tar archives.
func readDeb(raw []byte) (*deb, error) {
	members, err := readAr(raw)
	if err != nil {
		return nil, err
	}
	d := &deb{}
	control, err := readTar(members["control.tar.xz"])
	if err != nil {
		return nil, fmt.Errorf("control.tar.xz: %w", err)
	}
	for _, e := range control {
		if e.name == "control" {
			d.control = string(e.body)
		}
	}
	if d.files, err = readTar(members["data.tar.xz"]); err != nil {
		return nil, fmt.Errorf("data.tar.xz: %w", err)
	}
	return d, nil
}

// arHeader: name 16, time 12, user 6, group 6, mode 8, size 10, end 2.
const (
	arMagic  = "!<arch>\n"
	arHeader = 60
)

func readAr(raw []byte) (map[string][]byte, error) {
	rest, ok := bytes.CutPrefix(raw, []byte(arMagic))
	if !ok {
		return nil, errors.New("not a Debian package")
	}
	members := map[string][]byte{}
	for len(rest) >= arHeader {
		head := string(rest[:arHeader])
		rest = rest[arHeader:]
		size, err := strconv.ParseUint(strings.TrimSpace(head[48:58]), 10, 31)
		if err != nil || int(size) > len(rest) {
			return nil, errors.New("the archive is cut short")
		}
		members[strings.TrimRight(head[:16], " /")] = rest[:size]
		rest = rest[min(int(size+size%2), len(rest)):] // members begin at even places
	}
	return members, nil
}

// maxUnpacked is what a package's archive may come to.
const maxUnpacked = 256 << 20

func readTar(packed []byte) ([]entry, error) {
	x, err := xz.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	var out []entry
	for t := tar.NewReader(io.LimitReader(x, maxUnpacked)); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		e := entry{name: strings.TrimPrefix(path.Clean("/"+h.Name), "/"), kind: h.Typeflag, mode: h.Mode & 0o7777, link: h.Linkname}
		switch h.Typeflag {
		case tar.TypeReg:
			if e.body, err = io.ReadAll(t); err != nil {
				return nil, err
			}
		case tar.TypeSymlink:
		default:
			continue // directories are made where files need them
		}
		out = append(out, e)
	}
}

const docs = "usr/share/doc"

// addTo takes what runs and what a licence asks for: no documentation, no
// character sets, no scripts.
func (d *deb) addTo(t *tree) {
	name := d.field("Package")
	for _, e := range d.files {
		switch {
		case strings.HasPrefix(e.name, "lib/"), strings.HasPrefix(e.name, "lib64/"),
			strings.HasPrefix(e.name, authorities),
			path.Dir(e.name) == docs && e.link != "", path.Dir(path.Dir(e.name)) == docs && path.Base(e.name) == "copyright":
			t.add(e)
		}
	}
	// As in the known distroless images: scanners look for it here.
	t.file("var/lib/dpkg/status.d/"+name, d.control)
}

// field of the description.
func (d *deb) field(key string) string {
	for line := range strings.Lines(d.control) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
