module github.com/tailxds/tailxds/scripts/offline/k8s/build/pause

go 1.26.8
