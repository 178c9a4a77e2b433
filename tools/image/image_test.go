// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/ulikunitz/xz"
)

// packXZ makes an archive as Debian's packages hold them.
func packXZ(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	x, err := xz.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(x)
	for name, body := range files {
		h := &tar.Header{Name: "./" + name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body)), ModTime: time.Now()}
		if target, ok := strings.CutPrefix(body, "-> "); ok {
			h.Typeflag, h.Linkname, h.Size, body = tar.TypeSymlink, target, 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func packDeb(t testing.TB, control string, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString(arMagic)
	for _, m := range []struct {
		name string
		body []byte
	}{
		{"debian-binary", []byte("2.0\n")},
		{"control.tar.xz", packXZ(t, map[string]string{"control": control})},
		{"data.tar.xz", packXZ(t, files)},
	} {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 0, 0, 0, "100644", len(m.body))
		b.Write(m.body)
		if len(m.body)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func TestPackageBecomesLayer(t *testing.T) {
	raw := packDeb(t, "Package: libc6\nVersion: 1\n", map[string]string{
		"lib/x/libc.so.6":                         "library",
		"lib64/ld.so":                             "-> /lib/x/ld.so",
		"usr/lib/x/gconv/BIG5.so":                 "character set",
		"usr/share/doc/libc6/copyright":           "licence",
		"usr/share/doc/libc6/changelog.gz":        "long",
		"usr/share/ca-certificates/mozilla/B.crt": "second\n",
		"usr/share/ca-certificates/mozilla/A.crt": "first",
	})
	d, err := readDeb(raw)
	if err != nil {
		t.Fatal(err)
	}
	tr := newTree()
	d.addTo(tr)
	tr.addAuthorities()
	for name, want := range map[string]string{
		"lib/x/libc.so.6":                   "library",
		"usr/share/doc/libc6/copyright":     "licence",
		"etc/ssl/certs/ca-certificates.crt": "first\nsecond\n",
		"var/lib/dpkg/status.d/libc6":       "Package: libc6\nVersion: 1\n",
	} {
		if got := string(tr.entries[name].body); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if tr.entries["lib64/ld.so"].link != "/lib/x/ld.so" {
		t.Error("the loader's link is lost")
	}
	if tr.entries["lib/x"].kind != tar.TypeDir {
		t.Error("a directory is missing above a file")
	}
	for name := range tr.entries {
		if strings.Contains(name, "gconv") || strings.Contains(name, "changelog") {
			t.Errorf("%s has no business there", name)
		}
	}
}

func TestSameInputSameDigest(t *testing.T) {
	var digests []string
	for range 2 {
		tr := newTree()
		for i := range 20 { // added in the order of a map
			tr.file(fmt.Sprintf("d%d/f", i), strings.Repeat("x", i*1000))
		}
		img, err := assemble(v1.Platform{OS: "linux", Architecture: "arm64"}, provenance{version: "1"}, []*tree{tr})
		if err != nil {
			t.Fatal(err)
		}
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d.String())
	}
	if digests[0] != digests[1] {
		t.Errorf("two digests of one content: %v", digests)
	}
}

func TestImage(t *testing.T) {
	tr := newTree()
	tr.file("usr/bin/orb8-agent", "program")
	img, err := assemble(v1.Platform{OS: "linux", Architecture: "arm64"}, provenance{version: "1.2", revision: "abc"}, []*tree{newTree(), tr})
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if file.Architecture != "arm64" || file.OS != "linux" || file.Config.Entrypoint[0] != "/usr/bin/orb8-agent" {
		t.Errorf("config is %+v", file)
	}
	if v := file.Config.Labels["org.opencontainers.image.version"]; v != "1.2" {
		t.Errorf("version label is %q", v)
	}
	body, err := io.ReadAll(mutate.Extract(img))
	if err != nil || !bytes.Contains(body, []byte("program")) {
		t.Errorf("the program is not in the image: %v", err)
	}
	out := filepath.Join(t.TempDir(), "layout")
	b := built{img, v1.Platform{OS: "linux", Architecture: "arm64"}}
	for range 2 { // the second takes the place of the first
		if err := writeLayout(options{out: out, ref: "r.local/x:dev"}, []built{b, b}); err != nil {
			t.Fatal(err)
		}
	}
	archive := filepath.Join(t.TempDir(), "deep", "x.tar")
	if err := writeArchive(options{out: archive, ref: "r.local/x:dev"}, b); err != nil {
		t.Fatal(err)
	}
	if err := writeLayout(options{out: filepath.Dir(archive), ref: "r.local/x:dev"}, []built{b}); err == nil {
		t.Error("a directory that is no layout was taken for one")
	}
	if _, err := os.Stat(archive); err != nil {
		t.Errorf("what was there is gone: %v", err)
	}
}

func TestBaseIsComplete(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		list, err := sources(baseList, arch)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range list {
			p, _, _ := strings.Cut(filepath.Base(s.path), "_")
			names = append(names, p)
		}
		if got := strings.Join(names, " "); got != "ca-certificates gcc-12-base libgcc-s1 libc6" {
			t.Errorf("%s: %s", arch, got)
		}
	}
	if _, err := sources(baseList, "riscv64"); err == nil {
		t.Error("an architecture without packages passes")
	}
	if _, err := sources("pool/x_amd64.deb abc\n", "amd64"); err == nil {
		t.Error("a line without a sum passes")
	}
}

func TestWrongSumIsRefused(t *testing.T) {
	s := source{path: "pool/x_all.deb", sum: strings.Repeat("0", 64)}
	if err := s.check([]byte("other")); err == nil || !strings.Contains(err.Error(), "x_all.deb: its SHA-256 is") {
		t.Errorf("error is %v", err)
	}
}

func FuzzReadDeb(f *testing.F) {
	whole := packDeb(f, "Package: x\n", map[string]string{"lib/a": "b"})
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte(arMagic))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		if d, err := readDeb(raw); err == nil {
			d.addTo(newTree())
		}
	})
}
