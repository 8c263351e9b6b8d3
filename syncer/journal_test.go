package syncer

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// picture is a sink that obeys the frames of Batch.
type picture struct {
	objects map[Key]string
	stale   map[Key]bool
	framed  bool
}

func newPicture() *picture { return &picture{objects: map[Key]string{}} }

func (p *picture) Put(b Batch) error {
	if b.Begin {
		p.framed = true
		p.stale = map[Key]bool{}
		for key := range p.objects {
			p.stale[key] = true
		}
	}
	for _, object := range b.Upserts {
		p.objects[object.Key] = object.Version
		delete(p.stale, object.Key)
	}
	for _, key := range b.Deletes {
		delete(p.objects, key)
	}
	if b.End {
		for key := range p.stale {
			delete(p.objects, key)
		}
		p.stale, p.framed = nil, false
	}
	return nil
}

func drain(t interface{ Fatalf(string, ...any) }, j *Journal, c Cursor, limit Limit, sink Sink) Cursor {
	for i := 0; ; i++ {
		next, moved, err := Step(j, c, limit, sink)
		if err != nil {
			t.Fatalf("step: %v", err)
		}
		if !moved {
			return next
		}
		if i > 100_000 {
			t.Fatalf("the reader never reaches the head")
		}
		c = next
	}
}

func contents(j *Journal) map[Key]string {
	held := map[Key]string{}
	for key, e := range j.entries {
		if !e.deleted {
			held[key] = e.object.Version
		}
	}
	return held
}

func TestEveryReaderEndsWithTheJournalsObjects(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := NewJournal(rapid.IntRange(0, 3).Draw(t, "keepDeletes"))
		readers := []*picture{newPicture(), newPicture()}
		cursors := make([]Cursor, len(readers))
		limit := Limit{Objects: rapid.IntRange(1, 4).Draw(t, "limit"), Bytes: 1 << 20}
		key := rapid.Map(rapid.IntRange(0, 9), func(i int) Key { return Key{Name: fmt.Sprint("object-", i)} })
		version := 0
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			switch rapid.IntRange(0, 6).Draw(t, "action") {
			case 0, 1:
				version++
				j.Upsert(Object{Key: key.Draw(t, "key"), Version: fmt.Sprint(version), JSON: []byte("{}")})
			case 2:
				j.Delete(key.Draw(t, "key"))
			case 3:
				var list []Object
				for _, k := range rapid.SliceOfNDistinct(key, 0, 6, rapid.ID[Key]).Draw(t, "list") {
					version++
					list = append(list, Object{Key: k, Version: fmt.Sprint(version)})
				}
				j.Replace(list)
			case 4:
				r := rapid.IntRange(0, 1).Draw(t, "reader")
				cursors[r] = Cursor{}
			default:
				r := rapid.IntRange(0, 1).Draw(t, "reader")
				cursors[r], _, _ = Step(j, cursors[r], limit, readers[r])
			}
		}
		for r, reader := range readers {
			drain(t, j, cursors[r], limit, reader)
			if diff := cmp.Diff(contents(j), reader.objects); diff != "" {
				t.Fatalf("reader %d differs (-journal +reader):\n%s", r, diff)
			}
			if reader.framed {
				t.Fatalf("reader %d is inside a snapshot at the head", r)
			}
		}
		if want := len(contents(j)); j.Len() != want {
			t.Fatalf("Len() = %d, want %d", j.Len(), want)
		}
		if bound := 2*len(j.entries) + 65; len(j.log) > bound {
			t.Fatalf("the log holds %d records for %d objects", len(j.log), len(j.entries))
		}
	})
}

func TestAReaderBehindAForgottenDeletionGetsASnapshot(t *testing.T) {
	j := NewJournal(1)
	for i := range 200 {
		j.Upsert(Object{Key: Key{Name: fmt.Sprint(i)}, Version: "1"})
	}
	reader := newPicture()
	limit := Limit{Objects: 1000, Bytes: 1 << 20}
	cursor := drain(t, j, Cursor{}, limit, reader)
	for i := range 199 {
		j.Delete(Key{Name: fmt.Sprint(i)})
	}
	batch, _, _ := j.Next(cursor, limit)
	if !batch.Begin {
		t.Fatalf("a reader behind the floor was given a delta: %+v", batch)
	}
	drain(t, j, cursor, limit, reader)
	if diff := cmp.Diff(map[Key]string{{Name: "199"}: "1"}, reader.objects); diff != "" {
		t.Fatal(diff)
	}
}

func TestARelistOfTheSameVersionsSaysNothing(t *testing.T) {
	j := NewJournal(10)
	list := []Object{{Key: Key{Name: "a"}, Version: "1"}, {Key: Key{Name: "b"}, Version: "2"}}
	j.Replace(list)
	limit := Limit{Objects: 10, Bytes: 1000}
	cursor := drain(t, j, Cursor{}, limit, newPicture())
	if j.Replace(list) {
		t.Error("the same list counts as a change")
	}
	if batch, _, ok := j.Next(cursor, limit); ok {
		t.Errorf("the same list was sent again: %+v", batch)
	}
}

func TestAFailedSinkIsGivenTheSameBatchAgain(t *testing.T) {
	j := NewJournal(10)
	j.Upsert(Object{Key: Key{Name: "a"}, Version: "1"})
	limit := Limit{Objects: 10, Bytes: 1000}
	cursor, moved, err := Step(j, Cursor{}, limit, refusing{})
	if err == nil || moved || cursor != (Cursor{}) {
		t.Fatalf("Step = %+v, %v, %v", cursor, moved, err)
	}
	reader := newPicture()
	drain(t, j, cursor, limit, reader)
	if len(reader.objects) != 1 {
		t.Fatalf("got %v", reader.objects)
	}
}

type refusing struct{}

func (refusing) Put(Batch) error { return fmt.Errorf("sink is closed") }
