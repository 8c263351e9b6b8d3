package store

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

func TestPagesThatWereReadDoNotStay(t *testing.T) {
	s, err := openMachine(Config{DataDir: t.TempDir(), Name: "m", Logger: slog.New(slog.DiscardHandler)}.WithDefaults(), newMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	value := strings.Repeat("v", 64<<10)
	for i := range 200 {
		s.kv.Put(fmt.Appendf(nil, "k%03d", i), []byte(value), lease.NoLease)
	}
	s.kv.Commit()
	read := func() {
		t.Helper()
		all, err := s.kv.Range(context.Background(), []byte("k"), []byte("l"), mvcc.RangeOptions{})
		if err != nil || len(all.KVs) != 200 {
			t.Fatalf("read %d objects, %v", len(all.KVs), err)
		}
		for _, kv := range all.KVs {
			if string(kv.Value) != value {
				t.Fatalf("%s has another value", kv.Key)
			}
		}
	}
	read()
	before := residentKiB(t, s.path)
	if err := s.letGoOfPages(); err != nil {
		t.Fatal(err)
	}
	after := residentKiB(t, s.path)
	if before < 10<<10 || after > before/4 {
		t.Errorf("%d KiB of the database were in memory, %d KiB after letting go", before, after)
	}
	read()
}

// residentKiB is how much of a mapped file is in this process's memory.
func residentKiB(t *testing.T, path string) (kib int) {
	t.Helper()
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	inside := false
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var part int
		switch line := lines.Text(); {
		case strings.Contains(line, "-") && strings.Contains(line, "/") || strings.HasSuffix(line, " 0 "):
			inside = strings.HasSuffix(line, " "+path)
		case inside && strings.HasPrefix(line, "Rss:"):
			if _, err := fmt.Sscanf(line, "Rss: %d kB", &part); err != nil {
				t.Fatal(err)
			}
			kib += part
		}
	}
	return kib
}

func TestMappingsAreOfTheFileAlone(t *testing.T) {
	const text = `7f0000000000-7f0000400000 r--s 00000000 fe:00 131 /data/a b/db
7f0000400000-7f0000800000 r--s 00000000 fe:00 132 /other/data/a b/db
7f0000800000-7f0000c00000 r--s 00000000 fe:00 133 /data/a b/db (deleted)
7f0000c00000-7f0001000000 rw-p 00000000 fe:00 131 /data/a b/db
7f0001000000-7f0001400000 rw-p 00000000 00:00 0 
`
	got, err := mappingsOf("/data/a b/db", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]mapping{{0x7f0000000000, 0x7f0000400000}}, got, cmp.AllowUnexported(mapping{})); diff != "" {
		t.Error(diff)
	}
	if _, err := mappingsOf("/db", strings.NewReader("zz-7f r--s 0 fe:00 1 /db\n")); err == nil {
		t.Error("what is no range was read as one")
	}
}
