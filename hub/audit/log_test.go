package audit

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	authnv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"

	"tripod.dev/tripod/hub/api/audittrail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

// rig writes a log in a folder of its own, by a clock of its own.
type rig struct {
	t    *testing.T
	path string
	now  time.Time
	log  *Log
	sent int
	max  int64
}

func newRig(t *testing.T, maxBytes int64) *rig {
	t.Helper()
	r := &rig{t: t, path: filepath.Join(t.TempDir(), "audit", "audit.log"), now: time.Unix(1_800_000_000, 0), max: maxBytes}
	r.open()
	return r
}

func (r *rig) open() {
	r.t.Helper()
	var err error
	r.log, err = Open(Config{
		Path: r.path, Member: "hub-a", Key: key, MaxBytes: r.max, MaxFiles: 5,
		Now: func() time.Time { return r.now }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func event(number int) *auditinternal.Event {
	return &auditinternal.Event{
		Level: auditinternal.LevelMetadata, AuditID: types.UID(fmt.Sprintf("id-%d", number)), Stage: auditinternal.StageResponseComplete,
		RequestURI: "/api/v1/namespaces/default/configmaps", Verb: "list", User: authnv1.UserInfo{Username: "ann"},
		StageTimestamp: metav1.NewMicroTime(time.Unix(1_800_000_000, 0)),
	}
}

// write sends events and has a head signed after every third.
func (r *rig) write(n int) {
	r.t.Helper()
	for range n {
		r.sent++
		if !r.log.ProcessEvents(event(r.sent)) {
			r.t.Fatalf("event %d was not written", r.sent)
		}
		if r.sent%3 == 0 {
			r.log.sign()
		}
		r.now = r.now.Add(time.Second)
	}
}

// die leaves the log as a killed process does, with a part of a line.
func (r *rig) die(torn string) {
	r.t.Helper()
	r.log.file.abandon()
	file, err := os.OpenFile(r.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := file.WriteString(torn); err != nil {
		r.t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// content is the log's files as they are, by name, the newest last.
func (r *rig) content() (names []string, text map[string]string) {
	r.t.Helper()
	names, err := r.log.endedFiles()
	if err != nil {
		r.t.Fatal(err)
	}
	names = append(names, r.path)
	text = map[string]string{}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			r.t.Fatal(err)
		}
		text[name] = string(data)
	}
	return names, text
}

func verify(t *testing.T, text map[string]string, heads ...audittrail.Head) audittrail.Result {
	t.Helper()
	var files []audittrail.File
	for name, content := range text {
		files = append(files, audittrail.File{Name: filepath.Base(name), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(content)), nil
		}})
	}
	published := map[string]audittrail.Head{}
	for _, head := range heads {
		published[head.Key()] = head
	}
	result, err := audittrail.Verify(files, key.Public().(ed25519.PublicKey), published)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func complaints(result audittrail.Result) string {
	var all []string
	for _, p := range result.Problems {
		all = append(all, p.String())
	}
	for _, trail := range result.Trails {
		for _, p := range trail.Problems {
			all = append(all, p.String())
		}
	}
	return strings.Join(all, "\n")
}

// longLog is a log of three files, with two restarts in it: one in order, one by a
// kill in the middle of a line.
func longLog(t *testing.T) *rig {
	r := newRig(t, 9000)
	r.write(4)
	r.log.Shutdown()
	r.open()
	r.write(3)
	r.die(`{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Meta`)
	r.open()
	r.write(25)
	r.log.Shutdown()
	return r
}

func TestALogIsOneChainOverRotationAndRestarts(t *testing.T) {
	r := longLog(t)
	names, text := r.content()
	if len(names) < 3 {
		t.Fatalf("%d files: the test wants three", len(names))
	}
	result := verify(t, text, r.log.Head())
	if !result.Good() || len(result.Trails) != 1 {
		t.Fatalf("%d trails:\n%s", len(result.Trails), complaints(result))
	}
	trail := result.Trails[0]
	if trail.First != 1 || trail.Signed != trail.Last || !trail.Ended || trail.Member != "hub-a" || len(trail.Files) != len(names) {
		t.Errorf("got %+v", trail)
	}
	events := 0
	for _, content := range text {
		events += strings.Count(content, `"username":"ann"`)
	}
	if events != r.sent {
		t.Errorf("the files have %d events of %d", events, r.sent)
	}
}

func TestRotationDeletesTheOldestFilesAndTheRestVerifies(t *testing.T) {
	r := newRig(t, 3000)
	r.write(60)
	r.log.Shutdown()
	names, text := r.content()
	if len(names) != 6 {
		t.Errorf("%d files are kept, want five and the one that is written", len(names))
	}
	result := verify(t, text, r.log.Head())
	if !result.Good() || result.Trails[0].First == 1 {
		t.Errorf("first %d\n%s", result.Trails[0].First, complaints(result))
	}
	r.now = r.now.Add(31 * 24 * time.Hour)
	r.open()
	r.write(10)
	r.log.Shutdown()
	for _, name := range names[:5] {
		if _, err := os.Stat(name); err == nil {
			t.Errorf("%s is kept after a month", strings.TrimPrefix(name, filepath.Dir(r.path)))
		}
	}
}

// TestAFailedWriteLeavesAChain writes to a file that was closed under the log.
func TestAFailedWriteLeavesAChain(t *testing.T) {
	r := newRig(t, 1<<20)
	r.write(2)
	_ = r.log.file.file.Close()
	if r.log.ProcessEvents(event(0)) {
		t.Fatal("a closed file was written")
	}
	r.now = r.now.Add(openAgain)
	r.write(2)
	r.log.Shutdown()
	_, text := r.content()
	if result := verify(t, text); !result.Good() {
		t.Error(complaints(result))
	}
}

func TestAnOlderHubsLogIsMovedAside(t *testing.T) {
	r := newRig(t, 1<<20)
	r.log.Shutdown()
	if err := os.WriteFile(r.path, []byte(`{"kind":"Event","apiVersion":"audit.k8s.io/v1"}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.open()
	r.write(1)
	r.log.Shutdown()
	names, text := r.content()
	if len(names) != 2 {
		t.Fatalf("files %q", names)
	}
	if result := verify(t, map[string]string{r.path: text[r.path]}); !result.Good() {
		t.Error(complaints(result))
	}
	if got := complaints(verify(t, text)); !strings.Contains(got, "written by an older hub") {
		t.Errorf("got %q", got)
	}
}

// TestAnEventCannotLookLikeTheLogsOwn: the annotations of an event are in part what
// admission policies and webhooks say.
func TestAnEventCannotLookLikeTheLogsOwn(t *testing.T) {
	r := newRig(t, 1<<20)
	forged := event(1)
	forged.Annotations = map[string]string{
		"trail.tripod.dev/mark": "end", "trail.tripod.dev/sequence": "7", "hub.tripod.dev/member": "hub-b", "policy/reason": "kept",
	}
	r.log.ProcessEvents(forged)
	r.log.Shutdown()
	if len(forged.Annotations) != 4 {
		t.Error("the caller's event was changed")
	}
	_, text := r.content()
	if result := verify(t, text, r.log.Head()); !result.Good() {
		t.Error(complaints(result))
	}
	if !strings.Contains(text[r.path], `"policy/reason":"kept"`) || strings.Contains(text[r.path], "hub-b") {
		t.Error(text[r.path])
	}
}

func TestARefusedRequestHasItsClusterToo(t *testing.T) {
	r := newRig(t, 1<<20)
	refused := event(1)
	refused.ObjectRef = &auditinternal.ObjectReference{APIGroup: "tripod.dev", Resource: "clusters", Subresource: "proxy", Name: "north-1"}
	r.log.ProcessEvents(refused)
	r.log.Shutdown()
	if _, text := r.content(); !strings.Contains(text[r.path], `"gateway.tripod.dev/cluster":"north-1"`) {
		t.Error(text[r.path])
	}
}

func TestRunSignsAndEnds(t *testing.T) {
	r := newRig(t, 1<<20)
	r.log.config.SignEvery = time.Millisecond
	stop := make(chan struct{})
	if err := r.log.Run(stop); err != nil {
		t.Fatal(err)
	}
	r.log.ProcessEvents(event(1))
	for r.log.Head().Sequence != 3 { // begin, the event, sign
		select {
		case <-t.Context().Done():
			t.Fatal("the event was not signed")
		case <-time.After(time.Millisecond):
		}
	}
	close(stop)
	r.log.Shutdown()
	if r.log.ProcessEvents(event(2)) {
		t.Error("a closed log takes events")
	}
}
