module github.com/tailxds/tailxds/integration

go 1.26.8

exclude github.com/davecgh/go-spew v1.1.2-0.20180830191138-d8f796af33cc

exclude github.com/pmezard/go-difflib v1.0.1-0.20181226105442-5d4384ee4fb2

require gonum.org/v1/gonum v0.17.0

require golang.org/x/sys v0.49.0 // indirect
