// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The programs in the image: the agent, and the command line to ask it with
// where only `kubectl exec` is at hand.
var programs = []string{"orb8-agent", "orb8"}

// built is the image of one architecture.
type built struct {
	v1.Image
	platform v1.Platform
}

func build(ctx context.Context, o options, arch string) (built, error) {
	b := built{platform: v1.Platform{OS: "linux", Architecture: arch}}
	below, err := base(ctx, o.cache, arch)
	if err != nil {
		return b, err
	}
	dir, err := compile(ctx, o, arch)
	if err != nil {
		return b, err
	}
	defer os.RemoveAll(dir)
	top := newTree()
	for _, p := range programs {
		body, err := os.ReadFile(filepath.Join(dir, p))
		if err != nil {
			return b, err
		}
		top.add(entry{name: "usr/bin/" + p, kind: tar.TypeReg, mode: 0o755, body: body})
	}
	source, err := origin(filepath.Join(dir, programs[0]), o.version)
	if err != nil {
		return b, err
	}
	b.Image, err = assemble(b.platform, source, []*tree{below, top})
	return b, err
}

// compile builds the programs into a directory that the caller removes.
func compile(ctx context.Context, o options, arch string) (string, error) {
	dir, err := os.MkdirTemp("", "orb8-image-*")
	if err != nil {
		return "", err
	}
	ld := "-s -w"
	if o.version != "" {
		ld += " -X github.com/orb8/orb8/internal/version.release=" + o.version
	}
	args := []string{"build", "-C", o.root, "-trimpath", "-ldflags", ld, "-o", dir + "/"}
	for _, p := range programs {
		args = append(args, "./cmd/"+p)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", errors.Join(fmt.Errorf("go build: %w", err), os.RemoveAll(dir))
	}
	return dir, nil
}

// provenance is what the programs are built from.
type provenance struct {
	version, revision string
	at                time.Time
}

// origin reads it from a program itself: Go writes the commit there.
func origin(program, version string) (provenance, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return provenance{}, err
	}
	p := provenance{version: version, at: time.Unix(0, 0).UTC()}
	if version == "" && info.Main.Version != "(devel)" {
		p.version = strings.TrimPrefix(info.Main.Version, "v")
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			p.revision = s.Value
		case "vcs.time":
			if p.at, err = time.Parse(time.RFC3339, s.Value); err != nil {
				return p, fmt.Errorf("%s: time of the commit: %w", program, err)
			}
		}
	}
	return p, nil
}

// assemble stacks the layers. The base's files have a time of their own, so
// that it stays one layer from commit to commit.
func assemble(on v1.Platform, from provenance, layers []*tree) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, t := range layers {
		l, err := t.layer(time.Unix(0, 0))
		if err != nil {
			return nil, err
		}
		img, err = mutate.Append(img, mutate.Addendum{
			Layer:     l,
			MediaType: types.OCILayer,
			History:   v1.History{Created: v1.Time{Time: from.at}, CreatedBy: "tools/image"},
		})
		if err != nil {
			return nil, err
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = on.OS, on.Architecture
	file.Created = v1.Time{Time: from.at}
	file.Config = v1.Config{
		// Root, for its capabilities; which of them, the manifests say.
		User:       "0:0",
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Entrypoint: []string{"/usr/bin/orb8-agent"},
		WorkingDir: "/",
		Labels:     labels(from),
	}
	return mutate.ConfigFile(img, file)
}

func labels(from provenance) map[string]string {
	const prefix = "org.opencontainers.image."
	all := map[string]string{
		prefix + "title":       "orb8-agent",
		prefix + "description": "eBPF observability for Kubernetes on GPU clusters: the agent of a node",
		prefix + "source":      "https://github.com/orb8/orb8",
		prefix + "licenses":    "Apache-2.0",
		prefix + "created":     from.at.Format(time.RFC3339),
		prefix + "base.name":   "debian:bookworm",
	}
	for key, value := range map[string]string{"version": from.version, "revision": from.revision} {
		if value != "" {
			all[prefix+key] = value
		}
	}
	return all
}

// writeArchive writes what `docker load` and `ctr images import` take.
func writeArchive(o options, img built) error {
	tag, err := name.NewTag(o.ref)
	if err != nil {
		return fmt.Errorf("-ref: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return err
	}
	// Whole or not at all: what is imported half is hard to tell from a fault.
	part := o.out + ".part"
	err = tarball.WriteToFile(part, tag, img.Image)
	if err == nil {
		err = os.Rename(part, o.out)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", o.out, err), os.RemoveAll(part))
	}
	return report(o.out, o.ref, img)
}

// writeLayout writes an OCI layout with one index over all architectures.
func writeLayout(o options, images []built) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, img := range images {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img.Image, Descriptor: v1.Descriptor{Platform: &img.platform}})
	}
	if err := removeLayout(o.out); err != nil {
		return err
	}
	dir, err := layout.Write(o.out, empty.Index)
	if err != nil {
		return fmt.Errorf("write %s: %w", o.out, err)
	}
	// Both spellings: OCI's own, and the one that containerd imports by.
	named := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": o.ref, "io.containerd.image.name": o.ref})
	if err := dir.AppendIndex(index, named); err != nil {
		return fmt.Errorf("write %s: %w", o.out, err)
	}
	for _, img := range images {
		if err := report(o.out, o.ref+" "+img.platform.String(), img); err != nil {
			return err
		}
	}
	return nil
}

// removeLayout makes way for a new one, and touches nothing that is none.
func removeLayout(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		return fmt.Errorf("%s is there and is no OCI layout: remove it, or choose another -out", dir)
	}
	return os.RemoveAll(dir)
}

// report says what was written.
func report(path, what string, img v1.Image) error {
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	var size int64
	for _, l := range layers {
		n, err := l.Size()
		if err != nil {
			return err
		}
		size += n
	}
	fmt.Printf("%s: %s %s, %.1f MB compressed\n", path, what, digest, float64(size)/1e6)
	return nil
}
