// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// entry is one file, link or directory of a layer; its name has no leading slash.
type entry struct {
	name string
	kind byte // of tar
	mode int64
	link string
	body []byte
}

// tree is a layer in the making. What it is written as depends on nothing but
// its content: names in order, all root's, one time for all.
type tree struct{ entries map[string]entry }

func newTree() *tree { return &tree{entries: map[string]entry{}} }

// add takes an entry and the directories above it.
func (t *tree) add(e entry) {
	for up := path.Dir(e.name); up != "."; up = path.Dir(up) {
		if _, ok := t.entries[up]; !ok {
			t.dir(up, 0o755)
		}
	}
	t.entries[e.name] = e
}

func (t *tree) dir(name string, mode int64) {
	t.entries[name] = entry{name: name, kind: tar.TypeDir, mode: mode}
}

func (t *tree) file(name, body string) {
	t.add(entry{name: name, kind: tar.TypeReg, mode: 0o644, body: []byte(body)})
}

// authorities is where Debian keeps the certificates, one a file.
const authorities = "usr/share/ca-certificates/"

// addAuthorities makes one file of all certificates, where Go and OpenSSL look.
func (t *tree) addAuthorities() {
	var bundle bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		if !strings.HasPrefix(name, authorities) {
			continue
		}
		e := t.entries[name]
		delete(t.entries, name)
		if e.kind == tar.TypeReg {
			bundle.Write(bytes.TrimSpace(e.body))
			bundle.WriteByte('\n')
		}
	}
	delete(t.entries, path.Clean(authorities))
	t.file("etc/ssl/certs/ca-certificates.crt", bundle.String())
}

// layer is the tree as a compressed layer of an image.
func (t *tree) layer(at time.Time) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		e := t.entries[name]
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: e.mode, Linkname: e.link, Size: int64(len(e.body)), ModTime: at, Format: tar.FormatUSTAR}
		if e.kind == tar.TypeDir {
			h.Name += "/"
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.body); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
}
