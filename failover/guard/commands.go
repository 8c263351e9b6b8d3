package guard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// resultsKept bounds the memory of finished commands.
const resultsKept = 128

type job struct {
	command *agentv1.GuardCommand
	reply   func(*agentv1.GuardResult)
}

// worker is the one goroutine that does commands, and the door to it.
type worker struct{ *Guard }

// command takes one command; reply is called once, from another goroutine. A
// finished command is answered again without being done again.
func (g worker) command(cmd *agentv1.GuardCommand, reply func(*agentv1.GuardResult)) {
	g.mu.Lock()
	done := g.results[cmd.GetId()]
	if isFence(cmd) && done == nil && g.core.Admit(cmd, g.cfg.Clock()) == nil && g.interrupt != nil {
		// What waits in the queue is older now than what has been seen.
		g.interrupt()
	}
	g.mu.Unlock()
	if done != nil {
		reply(done)
		return
	}
	select {
	case g.work <- job{cmd, reply}:
	default:
		reply(failed(cmd, errors.New("the guard has too many commands waiting")))
	}
}

// run does one command after the other until ctx ends.
func (g worker) run(ctx context.Context) {
	g.describe(ctx)
	for {
		select {
		case <-g.ended:
			g.describe(ctx)
		case j := <-g.work:
			j.reply(g.do(ctx, j.command))
		case <-ctx.Done():
			return
		}
	}
}

func (g worker) do(ctx context.Context, cmd *agentv1.GuardCommand) *agentv1.GuardResult {
	timeout := time.Duration(cmd.GetDeadlineMillis()) * time.Millisecond
	if timeout <= 0 {
		timeout = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	name := workName(cmd)
	g.mu.Lock()
	if done := g.results[cmd.GetId()]; done != nil {
		g.mu.Unlock()
		return done
	}
	g.busy, g.interrupt = name, cancel
	err := g.core.Admit(cmd, g.cfg.Clock())
	g.mu.Unlock()

	saved := g.save()
	var divergence *agentv1.Divergence
	// A full disk must not keep a primary alive: a fence needs no memory.
	if err == nil && (saved == nil || isFence(cmd)) {
		divergence, err = g.carry(ctx, cmd)
		saved = g.save()
	}
	err = errors.Join(err, saved)
	g.set(func() { g.busy, g.interrupt = "", nil })
	if !isFence(cmd) {
		g.describe(ctx)
	}
	result := failed(cmd, err)
	result.Status, result.Divergence = g.Status(), divergence
	g.keep(result)
	g.notify()
	g.cfg.Log.Info("command done", "dataset", g.cfg.Identity.Key(), "step", name, "run", cmd.GetId(),
		"epoch", cmd.GetEpoch(), "outcome", result.GetOutcome().String(), "error", result.GetMessage())
	return result
}

// keep remembers a final answer. One that may be tried again is not kept.
func (g worker) keep(r *agentv1.GuardResult) {
	if r.GetOutcome() != agentv1.Outcome_OUTCOME_DONE || r.GetId() == "" {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.results[r.GetId()] = proto.CloneOf(r)
	g.order = append(g.order, r.GetId())
	if len(g.order) > resultsKept {
		delete(g.results, g.order[0])
		g.order = g.order[1:]
	}
}

func failed(cmd *agentv1.GuardCommand, err error) *agentv1.GuardResult {
	r := &agentv1.GuardResult{Id: cmd.GetId(), Outcome: agentv1.Outcome_OUTCOME_DONE}
	switch {
	case err == nil:
	case errors.Is(err, ErrOlder), errors.Is(err, ErrRefused):
		r.Outcome, r.Message = agentv1.Outcome_OUTCOME_REFUSED, err.Error()
	default:
		r.Outcome, r.Message = agentv1.Outcome_OUTCOME_FAILED, err.Error()
	}
	return r
}

func isFence(cmd *agentv1.GuardCommand) bool {
	_, fence := cmd.GetWork().(*agentv1.GuardCommand_Fence)
	return fence
}

func workName(cmd *agentv1.GuardCommand) string {
	if cmd.GetWork() == nil {
		return "unknown"
	}
	_, name, _ := strings.Cut(fmt.Sprintf("%T", cmd.GetWork()), "_")
	return name
}

// describe refreshes what a stopped copy says about itself. Reading a long log
// must not hold up a command: it is cut short.
func (g worker) describe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if g.mode() != agentv1.DatabaseMode_DATABASE_MODE_STOPPED || !g.formed() {
		return
	}
	if position, timeline, err := g.parts.Copier.Position(ctx); err == nil {
		g.set(func() { g.position, g.timeline = position, timeline })
	}
}

func (g *Guard) formed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.core.Memory().Formed
}
