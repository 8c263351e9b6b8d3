package fault

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// Damage alters one of the files under a member's data directory, as a bad disk or
// a write that was torn would, and says what it did. The member must not run.
func Damage(data string, random *rand.Rand) (string, error) {
	files, err := damageable(data)
	if err != nil {
		return "", err
	}
	file := files[random.IntN(len(files))]
	path := filepath.Join(data, file)
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read a file to damage: %w", err)
	}
	// Files end in space that was never written, where nothing can be damaged.
	written := len(content)
	for written > 1 && content[written-1] == 0 {
		written--
	}
	at := random.IntN(written)
	var what string
	switch random.IntN(4) {
	case 0:
		content, what = content[:at], "cut off"
	case 1:
		clear(content[at:min(at+512, len(content))])
		what = "512 bytes zeroed"
	default:
		content[at] ^= 1 << random.IntN(8)
		what = "a bit flipped"
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return "", fmt.Errorf("damage a file: %w", err)
	}
	return fmt.Sprintf("%s at %d of %d: %s", file, at, written, what), nil
}

// damageable lists the files that hold something. A log has many files, and every
// kind is to have its share.
func damageable(data string) ([]string, error) {
	kinds := map[string][]string{}
	err := filepath.WalkDir(data, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := entry.Info(); err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
			return err
		}
		name, err := filepath.Rel(data, path)
		kind := filepath.Ext(name) + strings.TrimSuffix(filepath.Base(name), filepath.Ext(name))
		if strings.HasSuffix(name, ".wal") {
			kind = "log"
		}
		kinds[kind] = append(kinds[kind], name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the files of a member: %w", err)
	}
	longest := 0
	for _, names := range kinds {
		longest = max(longest, len(names))
	}
	var out []string
	for _, kind := range []string{"db", "log", ".dbwal-meta", ".binstate", ".jsonmeta", ".summeta", "name"} {
		for i := 0; len(kinds[kind]) > 0 && i < longest; i++ {
			out = append(out, kinds[kind][i%len(kinds[kind])])
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds nothing", data)
	}
	return out, nil
}
