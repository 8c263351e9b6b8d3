package hub

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodConfig = `
name: hub-a
dataDir: /var/lib/tripod
hubTokenFile: /etc/tripod/hub-token
members:
- {name: hub-a, region: north, center: north-1, address: 192.0.2.1}
- {name: hub-b, region: north, center: north-2, address: 192.0.2.2}
- {name: hub-c, region: south, center: south-1, address: 192.0.2.3}
`

func TestLoadConfig(t *testing.T) {
	tests := map[string]struct {
		change func(string) string
		want   string // part of the error; empty means none
	}{
		"a good file is taken": {change: func(s string) string { return s }},
		"a misspelt field is named": {
			change: func(s string) string { return s + "bootstrp: true\n" },
			want:   "bootstrp",
		},
		"a name that is no member is refused": {
			change: func(s string) string { return strings.Replace(s, "name: hub-a\ndata", "name: hub-x\ndata", 1) },
			want:   `name is "hub-x", which members does not list`,
		},
		"an even number of first members is refused": {
			change: func(s string) string {
				return "bootstrap: true\n" + s + "- {name: hub-d, region: south, center: south-1, address: 192.0.2.4}\n"
			},
			want: "members has 4 entries",
		},
		"a member that joins may be the fourth": {
			change: func(s string) string {
				return s + "- {name: hub-d, region: south, center: south-1, address: 192.0.2.4}\n"
			},
		},
		"a member is not dead within minutes": {
			change: func(s string) string { return s + "removeDeadMembersAfter: 10m\n" },
			want:   "use an hour at least",
		},
		"a history of seconds is refused": {
			change: func(s string) string { return s + "storeHistory: 30s\n" },
			want:   "use 10m at least",
		},
		"an audit log of negative size is refused": {
			change: func(s string) string { return s + "audit: {maxSizeMB: -1}\n" },
			want:   "negative maxSizeMB",
		},
		"a network for direct access may be named": {
			change: func(s string) string { return s + "directAccess: {allow: [10.20.0.0/16]}\n" },
		},
		"an address for direct access that is no network is refused": {
			change: func(s string) string { return s + "directAccess: {allow: [north-1.example.test]}\n" },
			want:   "use networks",
		},
		"a quota may have a unit": {change: func(s string) string { return s + "storeQuota: 16Gi\n" }},
		"a store without a quota is refused": {
			change: func(s string) string { return s + "storeQuota: 0\n" },
			want:   "there is no database without a limit",
		},
		"an address that stands twice is refused": {
			change: func(s string) string { return strings.Replace(s, "192.0.2.3", "192.0.2.2", 1) },
			want:   "stands twice",
		},
		"a missing token is explained": {
			change: func(s string) string { return strings.Replace(s, "hubTokenFile: /etc/tripod/hub-token\n", "", 1) },
			want:   "openssl rand",
		},
		"drivers beside the agents may be named": {change: func(s string) string { return s + "drivers: [register, shelf]\n" }},
		"a driver that is built in is not named": {
			change: func(s string) string { return s + "drivers: [shelf, postgresql]\n" },
			want:   `drivers[1] is "postgresql", which is built in`,
		},
		"a driver that stands twice is refused": {
			change: func(s string) string { return s + "drivers: [shelf, shelf]\n" },
			want:   "drivers[1] (shelf) stands twice",
		},
		"a driver whose name is none is refused": {
			change: func(s string) string { return s + "drivers: [My Shelf]\n" },
			want:   "use lower-case letters",
		},
		"an unknown profile is refused": {
			change: func(s string) string { return s + "profile: MOON\n" },
			want:   "use LAN or WAN",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "hub.yaml")
			if err := os.WriteFile(path, []byte(test.change(goodConfig)), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadConfig(path)
			switch {
			case test.want == "" && err != nil:
				t.Errorf("LoadConfig: %v", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("LoadConfig: got %v, want an error with %q", err, test.want)
			}
		})
	}
}
