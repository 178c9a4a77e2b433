// SPDX-License-Identifier: Apache-2.0

// Command image writes orb8's container image without a container engine: it
// builds the programs for each architecture, lays them over a base made of
// Debian packages, and writes an archive that container runtimes import, or for
// several architectures an OCI layout. The same sources give the same digest.
// It never runs what it packs and never pushes. `make image` and `make
// image-all` run it; the Dockerfile beside the project makes the same for those
// who have an engine.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
)

// options of one run.
type options struct {
	root    string
	cache   string
	ref     string
	version string
	arches  []string
	out     string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var o options
	fs := flag.NewFlagSet("image", flag.ExitOnError)
	fs.StringVar(&o.root, "root", "../..", "the project's root")
	fs.StringVar(&o.cache, "cache", defaultCache(), "where the base's packages are kept")
	fs.StringVar(&o.ref, "ref", "registry.local/orb8-agent:dev", "the image's name")
	fs.StringVar(&o.version, "version", "", "the release that is built (default: the commit)")
	fs.StringVar(&o.out, "out", "", "the archive to write (default: ROOT/dist/orb8-agent.tar); with several architectures the directory of an OCI layout")
	arches := fs.String("arch", runtime.GOARCH, "architectures, by comma: amd64, arm64")
	_ = fs.Parse(args) // exits
	o.arches = strings.Split(*arches, ",")

	var images []built
	for _, arch := range o.arches {
		img, err := build(ctx, o, arch)
		if err != nil {
			return fmt.Errorf("%s: %w", arch, err)
		}
		images = append(images, img)
	}
	if len(images) == 1 {
		if o.out == "" {
			o.out = filepath.Join(o.root, "dist", "orb8-agent.tar")
		}
		return writeArchive(o, images[0])
	}
	if o.out == "" {
		o.out = filepath.Join(o.root, "dist", "orb8-agent")
	}
	return writeLayout(o, images)
}

func defaultCache() string {
	dir, err := os.UserCacheDir() // XDG_CACHE_HOME, else ~/.cache
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "orb8", "image")
}
