package traffic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/test/robustness/model"
)

// request is a client that reads and writes registers, one request at a time.
func (t *Traffic) request(ctx context.Context, random *rand.Rand, id int, member string, c *clientv3.Client) {
	for rest(ctx, rand.N(pause)) {
		if random.IntN(20) == 0 {
			t.readPast(ctx, random, member, c)
			continue
		}
		attempt, cancel := context.WithTimeout(ctx, patience/8+rand.N(patience))
		t.do(attempt, id, member, c, t.choose(random))
		cancel()
	}
}

func (t *Traffic) choose(random *rand.Rand) model.Request {
	key := fmt.Sprintf("%s%d", Registers, random.IntN(registers))
	switch n := random.IntN(100); {
	case n < 35:
		return model.Request{Kind: model.Put, Key: key, Value: t.recorder.value()}
	case n < 60:
		return model.Request{Kind: model.Get, Key: key}
	case n < 72:
		return model.Request{Kind: model.Range, Key: Registers}
	case n < 80:
		return model.Request{Kind: model.Delete, Key: key}
	case n < 82:
		return model.Request{Kind: model.DeleteRange, Key: Registers}
	default:
		also := fmt.Sprintf("%s%d", Registers, random.IntN(registers))
		if also == key {
			also = Registers + "none"
		}
		return model.Request{Kind: model.Txn, Key: key, Value: t.recorder.value(), Expect: t.recorder.expected(key), Also: also}
	}
}

// do sends one request, for as long as ctx allows, and records what came of it.
func (t *Traffic) do(ctx context.Context, id int, member string, c *clientv3.Client, r model.Request) *model.Response {
	o := model.Operation{Client: id, Member: member, Request: r, Call: t.recorder.now()}
	response, err := send(ctx, c, r)
	o.Return = t.recorder.now()
	if err != nil {
		o.Error = err.Error()
	} else {
		o.Response = response
	}
	t.recorder.operation(o)
	return o.Response
}

func send(ctx context.Context, c *clientv3.Client, r model.Request) (*model.Response, error) {
	switch r.Kind {
	case model.Put:
		answer, err := c.Put(ctx, r.Key, r.Value, clientv3.WithLease(clientv3.LeaseID(r.Lease)))
		if err != nil {
			return nil, err
		}
		return &model.Response{Revision: answer.Header.Revision}, nil
	case model.Get, model.Range:
		answer, err := c.Get(ctx, r.Key, within(r)...)
		if err != nil {
			return nil, err
		}
		return &model.Response{Revision: answer.Header.Revision, Items: items(answer.Kvs)}, nil
	case model.Delete, model.DeleteRange:
		answer, err := c.Delete(ctx, r.Key, within(r)...)
		if err != nil {
			return nil, err
		}
		return &model.Response{Revision: answer.Header.Revision, Deleted: answer.Deleted}, nil
	}
	answer, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(r.Key), "=", r.Expect)).
		Then(clientv3.OpPut(r.Key, r.Value), clientv3.OpDelete(r.Also)).Else(clientv3.OpGet(r.Key)).Commit()
	if err != nil {
		return nil, err
	}
	response := &model.Response{Revision: answer.Header.Revision, Succeeded: answer.Succeeded}
	if !answer.Succeeded {
		response.Items = items(answer.Responses[0].GetResponseRange().Kvs)
	}
	return response, nil
}

func within(r model.Request) []clientv3.OpOption {
	if r.Kind == model.Range || r.Kind == model.DeleteRange {
		return []clientv3.OpOption{clientv3.WithPrefix()}
	}
	return nil
}

func items(kvs []*mvccpb.KeyValue) []model.Item {
	var out []model.Item
	for _, kv := range kvs {
		out = append(out, item(kv))
	}
	return out
}

func item(kv *mvccpb.KeyValue) model.Item {
	return model.Item{Key: string(kv.Key), Value: string(kv.Value), Created: kv.CreateRevision, Modified: kv.ModRevision, Version: kv.Version, Lease: kv.Lease}
}

// readPast reads the registers as they were at some revision.
func (t *Traffic) readPast(ctx context.Context, random *rand.Rand, member string, c *clientv3.Client) {
	told, compacted := t.recorder.known()
	if told < 2 {
		return
	}
	lowest := max(compacted-10, 1)
	if lowest >= told {
		return
	}
	p := model.PastRead{Member: member, Prefix: Registers, Revision: lowest + random.Int64N(told-lowest) + 1, Call: t.recorder.now()}
	attempt, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := c.Get(attempt, p.Prefix, clientv3.WithPrefix(), clientv3.WithRev(p.Revision))
	p.Return = t.recorder.now()
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		p.Compacted = true
	case err != nil:
		return
	default:
		p.Items = items(answer.Kvs)
	}
	t.recorder.note(func(h *model.History) { h.PastReads = append(h.PastReads, p) })
}

// compact forgets, now and then, what every watcher of everything has seen.
func (t *Traffic) compact(ctx context.Context, random *rand.Rand, c *clientv3.Client) {
	for rest(ctx, time.Second+rand.N(time.Second)) {
		told, compacted := t.recorder.known()
		revision := told - random.Int64N(50)
		if revision <= compacted+1 {
			continue
		}
		attempt, cancel := context.WithTimeout(ctx, patience)
		record := model.Compaction{Revision: revision, Call: t.recorder.now()}
		_, err := c.Compact(attempt, revision)
		cancel()
		record.Return, record.Done = t.recorder.now(), err == nil
		t.recorder.note(func(h *model.History) { h.Compactions = append(h.Compactions, record) })
		t.recorder.mu.Lock()
		t.recorder.compacted = revision
		t.recorder.mu.Unlock()
	}
}
