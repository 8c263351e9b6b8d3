// Package validate audits the ledger: it compares what clients were told with
// what every copy of the database holds, and asks the hub nothing.
package validate
