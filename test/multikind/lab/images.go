package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"tripod.dev/tripod/test/multikind/center"
	"tripod.dev/tripod/test/multikind/image"
)

// programImages are the images that hold one static program, by the program's name in
// BinDir.
var programImages = map[string]string{
	"pause":        "tripod.dev/pause:dev",
	"ledger-api":   "tripod.dev/ledger-api:dev",
	"register":     "tripod.dev/register:dev",
	"coredns":      "tripod.dev/coredns:dev",
	"tripod-agent": "tripod.dev/agent:dev",
	"tripod-guard": "tripod.dev/guard:dev",
}

// renewed are the programs whose pods are replaced when their image is: a developer's
// `multikind up` runs what was just built. Databases keep running what they run.
var renewed = []string{"coredns", "ledger-api", "tripod-agent"}

// make fills archives and closes done; after an error done stays open and the context
// of the waiting centers ends.
func (i *imagery) make(ctx context.Context) error {
	cache := filepath.Join(i.lab.root, cacheName)
	unlock, err := lock(ctx, cache, "images", i.lab.report)
	if err != nil {
		return err
	}
	defer unlock()
	for program, reference := range programImages {
		path := filepath.Join(i.lab.state.BinDir, program)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue // buildPrograms has refused the ones that must exist
		}
		archive, err := image.Static(cache, reference, path)
		if err != nil {
			return err
		}
		i.archives = append(i.archives, archive)
	}
	archive, err := image.PostgreSQL(ctx, cache, func() {
		i.lab.report("making the image " + image.PostgreSQLReference + " from Debian's packages")
	})
	if err != nil {
		return err
	}
	i.archives = append(i.archives, archive)
	close(i.done)
	return nil
}

// load imports into the center what changed since its last import. It returns the
// references that had another content before.
func (i *imagery) load(ctx context.Context, b *box) ([]string, error) {
	select {
	case <-i.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := awaitContainerd(ctx, b); err != nil {
		return nil, err
	}
	var replaced []string
	for _, archive := range i.archives {
		record := i.lab.path(b.plan.Name, "lib", "kubernetes", "images", filepath.Base(archive.Reference))
		key, err := os.ReadFile(record)
		if err == nil && string(key) == archive.Key {
			continue
		}
		if out, err := ctr(ctx, b, "images", "import", "--digests=false", archive.Path); err != nil {
			return nil, fmt.Errorf("import %s: %w: %s", archive.Reference, err, out)
		}
		if err := replaceFile(record, []byte(archive.Key), 0o644); err != nil {
			return nil, err
		}
		if key != nil {
			replaced = append(replaced, archive.Reference)
		}
	}
	return replaced, nil
}

func awaitContainerd(ctx context.Context, b *box) error {
	return await(ctx, b, center.Containerd, "containerd to answer", func(ctx context.Context) error {
		out, err := ctr(ctx, b, "version")
		if err != nil {
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
		}
		return nil
	})
}

func ctr(ctx context.Context, b *box, arguments ...string) ([]byte, error) {
	arguments = append([]string{"--address", b.root(center.ContainerdSocket), "--namespace", "k8s.io"}, arguments...)
	command := exec.CommandContext(ctx, "ctr", arguments...)
	// A lab whose multikind is killed must not keep an import waiting.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return command.CombinedOutput()
}
