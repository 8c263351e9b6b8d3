package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
)

// Disk is a small file system in memory, of one member. Making one needs root.
type Disk struct{ folder string }

// diskSize leaves room for a member's files and not much more, in MiB.
const diskSize = 96

// MountDisk puts a small disk in place of folder.
func MountDisk(ctx context.Context, folder string) (*Disk, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("make a folder for a disk: %w", err)
	}
	out, err := exec.CommandContext(ctx, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", diskSize), "tmpfs", folder).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("mount a small disk, which needs root: %w: %s", err, out)
	}
	return &Disk{folder: folder}, nil
}

// Unmount takes the disk away, with what is on it.
func (d *Disk) Unmount(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, "umount", d.folder).CombinedOutput(); err != nil {
		return fmt.Errorf("unmount %s: %w: %s", d.folder, err, out)
	}
	return nil
}

// Keep copies what is on the disk to folder.
func (d *Disk) Keep(ctx context.Context, folder string) error {
	if out, err := exec.CommandContext(context.WithoutCancel(ctx), "cp", "-a", d.folder, folder).CombinedOutput(); err != nil {
		return fmt.Errorf("keep what is on the disk %s: %w: %s", d.folder, err, out)
	}
	return nil
}

func (d *Disk) filler() string { return filepath.Join(d.folder, "filler") }

// Fill leaves that many KiB free.
func (d *Disk) Fill(leave int) error {
	f, err := os.Create(d.filler())
	if err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	defer func() { _ = f.Close() }()
	block := make([]byte, 256<<10)
	for {
		if _, err := f.Write(block); err != nil {
			break // full
		}
	}
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	if err := f.Truncate(max(info.Size()-int64(leave)<<10, 0)); err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	return nil
}

// Free gives the space back.
func (d *Disk) Free() error {
	if err := os.Remove(d.filler()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("free the disk: %w", err)
	}
	return nil
}

// fill leaves a member nothing, or less than it keeps in reserve.
func fill(who target) doing {
	return func(ctx context.Context, f *Fleet, random *rand.Rand) error {
		m, err := who(ctx, f, random)
		if err != nil {
			return err
		}
		disk, ok := f.Disks[m.Name()]
		if !ok {
			return fmt.Errorf("%s has no disk of its own", m.Name())
		}
		f.endangered[m] = true
		if err := disk.Fill([]int{0, 100, 4 << 10, 12 << 10}[random.IntN(4)]); err != nil {
			return err
		}
		rest(ctx, between(random, 1000, 4000))
		return nil
	}
}
