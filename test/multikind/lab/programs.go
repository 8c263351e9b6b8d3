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
)

// packages maps a program or folder that a lab needs to the Debian package it comes
// from.
var packages = map[string]string{
	"/usr/bin/containerd":     "containerd",
	"/usr/bin/ctr":            "containerd",
	"/usr/sbin/runc":          "runc",
	"/usr/lib/cni/ptp":        "containernetworking-plugins",
	"/usr/lib/cni/host-local": "containernetworking-plugins",
	"/usr/sbin/iptables":      "iptables",
	"/usr/sbin/nft":           "nftables",
	"/usr/sbin/conntrack":     "conntrack",
	"/usr/sbin/ip":            "iproute2",
	"/usr/bin/nsenter":        "util-linux",
	"/usr/bin/etcdctl":        "etcd-client",
	"/usr/sbin/ldconfig":      "libc-bin",
}

// equip raises limits, installs and builds what is missing on this machine, one lab at a time.
func (l *Lab) equip(ctx context.Context) error {
	unlock, err := lock(ctx, filepath.Join(l.root, cacheName), "equipment", l.report)
	if err != nil {
		return err
	}
	defer unlock()
	if err := l.raiseLimits(); err != nil {
		return err
	}
	if err := l.installPackages(ctx); err != nil {
		return err
	}
	return l.buildPrograms(ctx)
}

// installPackages installs the packages that are missing.
func (l *Lab) installPackages(ctx context.Context) error {
	missing := map[string]bool{}
	for path, name := range packages {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			missing[name] = true
		} else if err != nil {
			return fmt.Errorf("look for package %s: %w", name, err)
		}
	}
	lists, err := filepath.Glob("/var/lib/apt/lists/*Packages*")
	if err != nil {
		return fmt.Errorf("look for package lists: %w", err)
	}
	if len(lists) == 0 || len(missing) > 0 {
		l.report("updating the package lists")
		if err := apt(ctx, "update"); err != nil {
			return err
		}
	}
	if len(missing) == 0 {
		return nil
	}
	arguments := []string{"install", "--yes", "--no-install-recommends"}
	for name := range missing {
		arguments = append(arguments, name)
	}
	l.report("installing the packages " + strings.Join(arguments[3:], ", "))
	return apt(ctx, arguments...)
}

func apt(ctx context.Context, arguments ...string) error {
	command := exec.CommandContext(ctx, "apt-get", append([]string{"-qq", "-o", "DPkg::Lock::Timeout=120"}, arguments...)...)
	command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("run apt-get %s: %w: %s", arguments[0], err, out)
	}
	return nil
}

// program is one that a lab builds when BinDir has it not.
type program struct {
	name string
	// folder holds its main package, from the root of the source tree.
	folder string
	// module is the folder of its own module, or empty.
	module  string
	ldflags string
	// when says whether this lab needs it.
	when func(state) bool
}

const kubernetesVersion = "v1.36.3"

func programs() []program {
	always := func(state) bool { return true }
	pods := func(s state) bool { return s.Nodes == NodesReal }
	hub := func(s state) bool { return s.Hub }
	agents := func(s state) bool { return s.Hub && s.Nodes == NodesReal }
	versionFlags := "-s -w -X k8s.io/component-base/version.gitVersion=" + kubernetesVersion +
		" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36" +
		" -X k8s.io/client-go/pkg/version.gitVersion=" + kubernetesVersion
	return []program{
		{name: "multikind", folder: "test/multikind", when: always},
		{name: "kubernode", folder: "test/multikind/kubernode", ldflags: versionFlags, when: always},
		{name: "storemember", folder: "test/storemember", when: func(s state) bool { return s.Store == StoreTripod }},
		{name: "pause", folder: "test/multikind/image/pause", ldflags: "-s -w", when: pods},
		{name: "ledger-api", folder: "test/multikind/image/ledgerapi", ldflags: "-s -w", when: pods},
		{name: "register", folder: "test/register", ldflags: "-s -w", when: agents},
		{name: "coredns", folder: ".", module: "test/multikind/coredns", ldflags: "-s -w", when: pods},
		{name: "tripod-hub", folder: "cmd/tripod-hub", when: hub},
		{name: "tripodctl", folder: "cmd/tripodctl", when: hub},
		{name: "tripod-agent", folder: "cmd/tripod-agent", ldflags: "-s -w", when: agents},
		{name: "tripod-guard", folder: "cmd/tripod-guard", ldflags: "-s -w", when: agents},
	}
}

// buildPrograms builds what BinDir lacks. What is there is used as it is: keeping it
// fresh is make's work.
func (l *Lab) buildPrograms(ctx context.Context) error {
	for _, p := range programs() {
		path := filepath.Join(l.state.BinDir, p.name)
		if _, err := os.Stat(path); err == nil || !p.when(l.state) {
			continue
		}
		source, err := sourceTree()
		if err != nil {
			return fmt.Errorf("program %s is missing: %w", path, err)
		}
		l.report("building " + p.name)
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", p.ldflags, "-o", path, "./"+p.folder)
		build.Dir = filepath.Join(source, p.module)
		// Images hold nothing but the program.
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", p.name, err, out)
		}
	}
	return nil
}

// sourceTree returns the root of the source tree around the current folder.
func sourceTree() (string, error) {
	folder, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find source tree: %w", err)
	}
	for ; folder != "/"; folder = filepath.Dir(folder) {
		content, err := os.ReadFile(filepath.Join(folder, "go.mod"))
		if err == nil && strings.HasPrefix(string(content), "module tripod.dev/tripod\n") {
			return folder, nil
		}
	}
	return "", errors.New("run make, or run multikind inside the source tree")
}
