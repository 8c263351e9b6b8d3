package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// PostgreSQLReference is the lab's PostgreSQL image.
const PostgreSQLReference = "tripod.dev/postgresql:15"

// PostgreSQLUser is the uid and gid that PostgreSQL runs under in the image.
const PostgreSQLUser = 999

const postgresqlPrograms = "/usr/lib/postgresql/15/bin"

// wanted are the packages whose files make the image, with all they depend on. A
// shell is needed by initdb, by archive commands and by people.
var wanted = []string{
	"postgresql-15", "postgresql-client-15", "base-files", "bash", "coreutils", "dash", "findutils",
	"grep", "gzip", "libc-bin", "sed", "tzdata",
}

// unwanted are packages that only installation scripts or just-in-time compilation
// need; installation scripts are not run.
var unwanted = []string{
	"adduser", "awk", "base-passwd", "debconf", "debianutils", "gcc-12-base", "libgcc-s1-dev", "libllvm14",
	"locales", "lsb-base", "mawk", "netbase", "passwd", "perl", "perl-base", "postgresql-client-common",
	"postgresql-common", "sensible-utils", "ssl-cert", "sysvinit-utils", "ucf",
}

// dropped are path prefixes that an image does not need.
var dropped = []string{
	"usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/lintian/", "usr/share/info/",
	"usr/share/postgresql/15/man/", "usr/lib/postgresql/15/lib/bitcode/", "usr/lib/postgresql/15/lib/llvmjit",
	"usr/share/bug/", "usr/share/menu/",
}

// PostgreSQL makes the image tripod.dev/postgresql:15 from the Debian packages that
// apt would install now; they are downloaded, not installed. The archive is made anew
// when a package has a new version; making is then called first.
func PostgreSQL(ctx context.Context, cache string, making func()) (Archive, error) {
	packages, err := resolved(ctx, cache)
	if err != nil {
		return Archive{}, fmt.Errorf("find packages of PostgreSQL: %w", err)
	}
	sum := sha256.Sum256([]byte(recipe + strings.Join(packages, "\n")))
	return cached(cache, PostgreSQLReference, hex.EncodeToString(sum[:]), func() (v1.Image, error) {
		making()
		return fromPackages(ctx, cache, packages)
	})
}

// recipe changes when this code makes another image of the same packages.
const recipe = "postgresql 4\n"

func fromPackages(ctx context.Context, cache string, packages []string) (v1.Image, error) {
	folder, err := os.MkdirTemp(cache, "packages-")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(folder)
	root := filepath.Join(folder, "root")
	if err := unpack(ctx, folder, root, packages); err != nil {
		return nil, err
	}
	content, err := pack(root)
	if err != nil {
		return nil, err
	}
	layer, err := layer(content)
	if err != nil {
		return nil, err
	}
	return assemble(layer, v1.Config{
		User:       fmt.Sprintf("%d:%d", PostgreSQLUser, PostgreSQLUser),
		Env:        []string{"PATH=" + postgresqlPrograms + ":/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "PGDATA=/var/lib/postgresql/data"},
		Cmd:        []string{"postgres"},
		WorkingDir: "/var/lib/postgresql",
	})
}

// resolved returns NAME=VERSION of all packages of the image. Asking apt takes
// seconds, so the answer is kept until the package lists change.
func resolved(ctx context.Context, cache string) ([]string, error) {
	lists, err := os.Stat("/var/lib/apt/lists")
	if err != nil {
		return nil, fmt.Errorf("look at package lists: %w", err)
	}
	sum := sha256.Sum256(fmt.Append(nil, lists.ModTime().UnixNano(), recipe, wanted, unwanted))
	stamp := "# " + hex.EncodeToString(sum[:])
	record := filepath.Join(cache, "postgresql.packages")
	if content, err := os.ReadFile(record); err == nil {
		if lines := strings.Split(string(content), "\n"); lines[0] == stamp {
			return lines[1:], nil
		}
	}
	packages, err := closure(ctx, wanted)
	if err != nil {
		return nil, err
	}
	found, err := versions(ctx, packages)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("make image cache: %w", err)
	}
	content := strings.Join(append([]string{stamp}, found...), "\n")
	if err := os.WriteFile(record, []byte(content), 0o644); err != nil {
		return nil, fmt.Errorf("keep package list: %w", err)
	}
	return found, nil
}

// closure returns packages and everything they depend on, sorted. Of alternatives the
// first is taken, as apt does.
func closure(ctx context.Context, packages []string) ([]string, error) {
	found := map[string]bool{}
	for level := packages; len(level) > 0; {
		for _, name := range level {
			found[name] = true
		}
		arguments := append([]string{"depends", "--important"}, level...)
		out, err := exec.CommandContext(ctx, "apt-cache", arguments...).Output()
		if err != nil {
			return nil, fmt.Errorf("run apt-cache depends: %w", err)
		}
		level = nil
		for _, name := range dependencies(string(out)) {
			if !found[name] && !slices.Contains(unwanted, name) && !slices.Contains(level, name) {
				level = append(level, name)
			}
		}
	}
	names := make([]string, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// dependencies reads what `apt-cache depends --important` prints.
func dependencies(out string) []string {
	var names []string
	alternative := false
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		kind, name, isDependency := strings.Cut(line, "epends: ")
		if !isDependency {
			continue
		}
		first := !alternative
		alternative = strings.HasPrefix(kind, " |")
		if first && !strings.HasPrefix(name, "<") {
			names = append(names, name)
		}
	}
	return names
}

// versions returns NAME=VERSION for each package, at the version apt would install.
func versions(ctx context.Context, packages []string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", append([]string{"policy"}, packages...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("run apt-cache policy: %w", err)
	}
	var list []string
	var name string
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, " ") {
			name = strings.TrimSuffix(strings.TrimSpace(line), ":")
		} else if candidate, ok := strings.CutPrefix(strings.TrimSpace(line), "Candidate: "); ok && candidate != "(none)" {
			list = append(list, name+"="+candidate)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("apt knows none of %v; run apt-get update", packages)
	}
	return list, nil
}

// links are made before anything is extracted, so that packages which name a folder
// by its old place land in the new one: Debian 12's merged /usr, and /var/run. They
// are relative: an absolute one would lead the extraction out of the image.
var links = map[string]string{
	"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "var/run": "../run",
}

// unpack downloads packages to folder and extracts them into root, then makes the
// library cache.
func unpack(ctx context.Context, folder, root string, packages []string) error {
	for link, target := range links {
		for _, made := range []string{filepath.Dir(link), filepath.Join(filepath.Dir(link), target)} {
			if err := os.MkdirAll(filepath.Join(root, made), 0o755); err != nil {
				return fmt.Errorf("make root: %w", err)
			}
		}
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			return fmt.Errorf("make root: %w", err)
		}
	}
	download := exec.CommandContext(ctx, "apt-get", append([]string{"-qq", "-o", "APT::Sandbox::User=root", "download"}, packages...)...)
	download.Dir = folder
	if out, err := download.CombinedOutput(); err != nil {
		return fmt.Errorf("download packages: %w: %s", err, out)
	}
	archives, err := filepath.Glob(filepath.Join(folder, "*.deb"))
	if err != nil {
		return fmt.Errorf("list packages: %w", err)
	}
	for _, archive := range archives {
		extract := exec.CommandContext(ctx, "sh", "-c", `dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$2" -f -`, "sh", archive, root)
		if out, err := extract.CombinedOutput(); err != nil {
			return fmt.Errorf("extract %s: %w: %s", filepath.Base(archive), err, out)
		}
	}
	if out, err := exec.CommandContext(ctx, "ldconfig", "-r", root).CombinedOutput(); err != nil {
		return fmt.Errorf("make library cache: %w: %s", err, out)
	}
	return addUser(root)
}

func addUser(root string) error {
	for path, content := range map[string]string{
		"etc/passwd":        fmt.Sprintf("root:x:0:0:root:/root:/bin/bash\npostgres:x:%d:%d:PostgreSQL:/var/lib/postgresql:/bin/bash\n", PostgreSQLUser, PostgreSQLUser),
		"etc/group":         fmt.Sprintf("root:x:0:\npostgres:x:%d:\n", PostgreSQLUser),
		"etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
	} {
		if err := os.WriteFile(filepath.Join(root, path), []byte(content), 0o644); err != nil {
			return fmt.Errorf("add user: %w", err)
		}
	}
	for _, path := range postgresqlFolders {
		if err := os.MkdirAll(filepath.Join(root, path), 0o755); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	return nil
}

// postgresqlFolders belong to PostgreSQL's user.
var postgresqlFolders = []string{"var/lib/postgresql", "run/postgresql"}

// pack writes the tree below root as a layer: everything belongs to root except
// PostgreSQL's folders, and times are zero.
func pack(root string) ([]byte, error) {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil || name == "." {
			return err
		}
		if slices.ContainsFunc(dropped, func(prefix string) bool {
			return strings.HasPrefix(name+"/", prefix) || strings.HasPrefix(name, prefix)
		}) {
			return nil
		}
		return packEntry(archive, path, name, entry)
	})
	if err != nil {
		return nil, fmt.Errorf("pack image: %w", err)
	}
	if err := archive.Close(); err != nil {
		return nil, fmt.Errorf("pack image: %w", err)
	}
	return buffer.Bytes(), nil
}

func packEntry(archive *tar.Writer, path, name string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	*header = tar.Header{Typeflag: header.Typeflag, Name: name, Linkname: target, Mode: header.Mode, Size: header.Size}
	if info.IsDir() {
		header.Name += "/"
	}
	if slices.Contains(postgresqlFolders, name) {
		header.Uid, header.Gid = PostgreSQLUser, PostgreSQLUser
	}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(archive, file)
	return err
}
