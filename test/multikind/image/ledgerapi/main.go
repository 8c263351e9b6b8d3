// Command ledger-api is the lab's example of an application that knows nothing of
// clusters: a small HTTP server in front of the ledger's database.
//
//	GET /healthz   200 while the process lives
//	GET /readyz    200 while the database answers; without DATABASE_URL always
//	GET /          who answers: pod, node and since when, as JSON
//	GET /balance   the number of accounts and the sum of all balances, as JSON
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

func main() {
	if err := run(); err != nil {
		slog.Error("ledger-api ended", "error", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	api := &api{since: time.Now()}
	if url := os.Getenv("DATABASE_URL"); url != "" {
		pool, err := pgxpool.New(ctx, url)
		if err != nil {
			return err
		}
		defer pool.Close()
		api.database = pool
	}
	address := os.Getenv("LISTEN")
	if address == "" {
		address = ":8080"
	}
	server := &http.Server{Addr: address, Handler: api.routes(), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(limited)
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// api answers requests; database is nil when the program was given none.
type api struct {
	database *pgxpool.Pool
	since    time.Time
}

func (a *api) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /readyz", a.ready)
	mux.HandleFunc("GET /balance", a.balance)
	mux.HandleFunc("GET /{$}", a.identity)
	return mux
}

func (a *api) identity(w http.ResponseWriter, _ *http.Request) {
	host, err := os.Hostname()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, map[string]any{"pod": host, "node": os.Getenv("NODE_NAME"), "since": a.since.UTC()})
}

func (a *api) ready(w http.ResponseWriter, r *http.Request) {
	if a.database == nil {
		w.WriteHeader(http.StatusOK)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if err := a.database.Ping(ctx); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

func (a *api) balance(w http.ResponseWriter, r *http.Request) {
	if a.database == nil {
		http.Error(w, "no database: set DATABASE_URL", http.StatusNotImplemented)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	var accounts, sum int64
	row := a.database.QueryRow(ctx, "SELECT count(*), coalesce(sum(balance), 0)::bigint FROM accounts")
	if err := row.Scan(&accounts, &sum); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	answer(w, map[string]any{"accounts": accounts, "sum": sum})
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil {
		slog.Warn("answer not sent", "error", err)
	}
}
