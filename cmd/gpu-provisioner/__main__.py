from kaito.provisioner.program import main

main()
