// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

//go:embed base.txt
var baseList string

// Where Debian's pool is, in the order of asking. What has left the first is in
// the second for good.
var mirrors = []string{"http://deb.debian.org/debian/", "http://archive.debian.org/debian/"}

const (
	maxPackage   = 64 << 20
	fetchTimeout = 2 * time.Minute
)

// source is one package of the base.
type source struct{ path, sum string }

// sources of an architecture, from the list.
func sources(list, arch string) ([]source, error) {
	var out []source
	for line := range strings.Lines(list) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, sum, ok := strings.Cut(line, " ")
		if !ok || len(sum) != 2*sha256.Size {
			return nil, fmt.Errorf("base.txt: %q is not a path and a SHA-256", line)
		}
		if strings.HasSuffix(name, "_"+arch+".deb") || strings.HasSuffix(name, "_all.deb") {
			out = append(out, source{name, sum})
		}
	}
	if len(out) < 2 {
		return nil, fmt.Errorf("base.txt has no packages for %s: add them", arch)
	}
	return out, nil
}

// base is the layer below orb8: the C library with its loader, for what is
// opened at run time, and the certificate authorities.
func base(ctx context.Context, cache, arch string) (*tree, error) {
	list, err := sources(baseList, arch)
	if err != nil {
		return nil, err
	}
	t := newTree()
	for _, s := range list {
		raw, err := s.fetch(ctx, cache)
		if err != nil {
			return nil, fmt.Errorf("base: %w", err)
		}
		d, err := readDeb(raw)
		if err != nil {
			return nil, fmt.Errorf("base: %s: %w", path.Base(s.path), err)
		}
		d.addTo(t)
	}
	t.addAuthorities()
	// The scanners of images ask which distribution the packages are of.
	t.file("etc/os-release", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n")
	t.file("etc/passwd", "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n")
	t.file("etc/group", "root:x:0:\nnogroup:x:65534:\n")
	t.file("etc/nsswitch.conf", "hosts: files dns\n")
	t.dir("root", 0o700)
	t.dir("run", 0o755)
	t.dir("tmp", 0o1777)
	return t, nil
}

// fetch gives the package from the cache, else from a mirror. What it gives has
// the sum of the list, wherever it came from.
func (s source) fetch(ctx context.Context, cache string) ([]byte, error) {
	kept := filepath.Join(cache, s.sum+".deb")
	raw, err := os.ReadFile(kept)
	if err == nil && s.check(raw) == nil {
		return raw, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all error
	for _, mirror := range mirrors {
		raw, err := download(ctx, mirror+s.path)
		if err == nil {
			err = s.check(raw)
		}
		if err != nil {
			all = errors.Join(all, err)
			continue
		}
		return raw, keep(kept, raw)
	}
	return nil, fmt.Errorf("%w\n(put the file into the cache by hand as %s, or name a newer package in tools/image/base.txt)", all, kept)
}

func (s source) check(raw []byte) error {
	sum := sha256.Sum256(raw)
	if got := hex.EncodeToString(sum[:]); got != s.sum {
		return fmt.Errorf("%s: its SHA-256 is %s, not %s", path.Base(s.path), got, s.sum)
	}
	return nil
}

func download(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", url, resp.Status)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(io.LimitReader(resp.Body, maxPackage)); err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	return b.Bytes(), nil
}

// keep writes the file whole or not at all: two may build at once.
func keep(name string, raw []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".part-*")
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
