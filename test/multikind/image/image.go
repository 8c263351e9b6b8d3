// Package image makes the container images of a lab on the spot, from programs just
// built and from Debian's packages, as archives that containerd imports. Images are
// reproducible: the same inputs give the same bytes.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Archive is an image in a file.
type Archive struct {
	// Reference is the image's name, as pods use it.
	Reference string
	Path      string
	// Key changes when the content does.
	Key string
}

// Static makes an image whose one program is the static binary at path, which
// becomes /NAME and the entry point. The archive goes to cache and is made anew only
// when the program changed.
func Static(cache, reference, path string) (Archive, error) {
	program, err := os.ReadFile(path)
	if err != nil {
		return Archive{}, fmt.Errorf("read program of %s: %w", reference, err)
	}
	if err := checkStatic(program); err != nil {
		return Archive{}, fmt.Errorf("make image %s of %s: %w", reference, path, err)
	}
	target := filepath.Base(path)
	hash := sha256.New()
	fmt.Fprintf(hash, "static 1 %s %s\n", reference, target)
	hash.Write(program)
	return cached(cache, reference, hex.EncodeToString(hash.Sum(nil)), func() (v1.Image, error) {
		layer, err := staticLayer(target, program)
		if err != nil {
			return nil, err
		}
		return assemble(layer, v1.Config{Entrypoint: []string{"/" + target}, Env: []string{"PATH=/"}, WorkingDir: "/"})
	})
}

// checkStatic refuses a program that needs a loader and libraries, which its image would
// not have.
func checkStatic(program []byte) error {
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return fmt.Errorf("read program: %w", err)
	}
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP {
			return errors.New("the program is linked dynamically: build it with CGO_ENABLED=0, as make build does")
		}
	}
	return nil
}

func staticLayer(target string, program []byte) (v1.Layer, error) {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	entries := []struct {
		header  tar.Header
		content []byte
	}{
		{tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0::/:\nnonroot:x:65532:65532::/:\n")},
		{tar.Header{Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\nnonroot:x:65532:\n")},
		{tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil},
		{tar.Header{Name: target, Mode: 0o755}, program},
	}
	for _, entry := range entries {
		entry.header.Size = int64(len(entry.content))
		if err := archive.WriteHeader(&entry.header); err != nil {
			return nil, fmt.Errorf("write layer: %w", err)
		}
		if _, err := archive.Write(entry.content); err != nil {
			return nil, fmt.Errorf("write layer: %w", err)
		}
	}
	if err := archive.Close(); err != nil {
		return nil, fmt.Errorf("write layer: %w", err)
	}
	return layer(buffer.Bytes())
}

func layer(content []byte) (v1.Layer, error) {
	return tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		// Archives stay on this machine: compressing them costs more than it saves.
		tarball.WithCompressionLevel(0),
	)
}

func assemble(layer v1.Layer, config v1.Config) (v1.Image, error) {
	base, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		Architecture: "amd64", OS: "linux", RootFS: v1.RootFS{Type: "layers"}, Config: config,
	})
	if err != nil {
		return nil, fmt.Errorf("configure image: %w", err)
	}
	return mutate.AppendLayers(base, layer)
}

// cached returns the archive of reference with the given key, calling make if the
// cache has it not. Archives of the same image with other keys are removed.
func cached(cache, reference, key string, make func() (v1.Image, error)) (Archive, error) {
	stem := strings.NewReplacer("/", "_", ":", "_").Replace(reference)
	archive := Archive{Reference: reference, Key: key, Path: filepath.Join(cache, stem+"-"+key[:16]+".tar")}
	if _, err := os.Stat(archive.Path); err == nil {
		return archive, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return archive, fmt.Errorf("look for image: %w", err)
	}
	tag, err := name.NewTag(reference)
	if err != nil {
		return archive, fmt.Errorf("name image: %w", err)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return archive, fmt.Errorf("make image cache: %w", err)
	}
	made, err := make()
	if err != nil {
		return archive, fmt.Errorf("make image %s: %w", reference, err)
	}
	old, err := filepath.Glob(filepath.Join(cache, stem+"-*.tar"))
	if err != nil {
		return archive, fmt.Errorf("list image cache: %w", err)
	}
	if err := tarball.WriteToFile(archive.Path+".new", tag, made); err != nil {
		return archive, fmt.Errorf("write image %s: %w", reference, err)
	}
	if err := os.Rename(archive.Path+".new", archive.Path); err != nil {
		return archive, fmt.Errorf("keep image %s: %w", reference, err)
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return archive, fmt.Errorf("remove old image: %w", err)
		}
	}
	return archive, nil
}
