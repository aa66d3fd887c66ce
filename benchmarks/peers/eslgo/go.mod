module eslgo-app

go 1.19

require github.com/percipia/eslgo v1.4.2-rc1
